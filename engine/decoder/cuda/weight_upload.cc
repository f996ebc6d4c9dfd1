#include "engine/decoder/cuda/weight_upload.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/status.h"

namespace assay::engine::cuda {
namespace {

constexpr int64_t kPieceBytes = int64_t{4} << 20;
// What fills PCIe where a thread copies 3 GB/s out of mapped files.
constexpr unsigned kMaxThreads = 16;

}  // namespace

// Threads that share the pieces of one Copy after another.
class WeightUpload::Crew {
 public:
  static absl::StatusOr<std::unique_ptr<Crew>> Make(cudaStream_t stream) {
    std::unique_ptr<Crew> crew(new Crew(stream));
    ASSAY_ASSIGN_OR_RETURN(crew->begun_, MakeEvent());
    ASSAY_RETURN_IF_CUDA_ERROR(cudaGetDevice(&crew->device_));
    crew->members_.resize(std::clamp(std::thread::hardware_concurrency(), 1u, kMaxThreads));
    for (Member& member : crew->members_) {
      ASSAY_ASSIGN_OR_RETURN(member.stream, MakeStream());
      for (Slot& slot : member.slots) {
        ASSAY_ASSIGN_OR_RETURN(slot.buffer, PinnedBuffer<std::byte>::Allocate(kPieceBytes));
        ASSAY_ASSIGN_OR_RETURN(slot.sent, MakeEvent());
      }
    }
    // The caller is the first member.
    for (size_t i = 1; i < crew->members_.size(); ++i) {
      crew->members_[i].thread = std::thread([&crew = *crew, i] { crew.Work(&crew.members_[i]); });
    }
    return crew;
  }

  ~Crew() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    for (Member& member : members_) {
      if (member.thread.joinable()) member.thread.join();
      if (member.stream != nullptr) (void)cudaStreamSynchronize(member.stream.get());
    }
  }

  absl::Status Copy(std::byte* destination, int64_t size, const Fill& fill) {
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(begun_.get(), stream_));
    {
      const std::lock_guard lock(mutex_);
      destination_ = destination;
      size_ = size;
      fill_ = &fill;
      next_ = 0;
      ++number_;
      status_ = absl::OkStatus();
    }
    if (size > kPieceBytes) changed_.notify_all();
    TakePieces(&members_[0]);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return num_filling_ == 0; });
    fill_ = nullptr;
    ASSAY_RETURN_IF_ERROR(status_);
    for (const Member& member : members_) {
      if (member.last_copy != number_) continue;
      const Slot& last = member.slots[1 - member.next_slot];
      ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamWaitEvent(stream_, last.sent.get(), 0));
    }
    return absl::OkStatus();
  }

  absl::Status Wait() {
    return CudaStatus(cudaStreamSynchronize(stream_), "the upload of weights");
  }

 private:
  struct Slot {
    PinnedBuffer<std::byte> buffer;
    Event sent;
  };
  struct Member {
    Stream stream;
    Slot slots[2];
    int next_slot = 0;
    int64_t last_copy = 0;  // in which it took part
    std::thread thread;
  };

  explicit Crew(cudaStream_t stream) : stream_(stream) {}

  void Work(Member* member) {
    (void)cudaSetDevice(device_);
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return stopping_ || HasPiece(); });
      if (stopping_) return;
      lock.unlock();
      TakePieces(member);
      lock.lock();
    }
  }

  bool HasPiece() const { return fill_ != nullptr && status_.ok() && next_ < size_; }

  // Fills and sends pieces while there are any.
  void TakePieces(Member* member) {
    std::unique_lock lock(mutex_);
    while (HasPiece()) {
      const int64_t offset = std::exchange(next_, next_ + kPieceBytes);
      const int64_t size = std::min(kPieceBytes, size_ - offset);
      std::byte* const destination = destination_ + offset;
      const Fill& fill = *fill_;
      const bool is_first = std::exchange(member->last_copy, number_) != number_;
      ++num_filling_;
      lock.unlock();
      const absl::Status status = Send(member, is_first, fill, offset, size, destination);
      lock.lock();
      if (!status.ok() && status_.ok()) status_ = status;
      if (--num_filling_ == 0) changed_.notify_all();
    }
  }

  absl::Status Send(Member* member, bool is_first, const Fill& fill, int64_t offset, int64_t size,
                    std::byte* destination) const {
    Slot& slot = member->slots[member->next_slot];
    member->next_slot = 1 - member->next_slot;
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventSynchronize(slot.sent.get()));
    ASSAY_RETURN_IF_ERROR(fill(offset, size, slot.buffer.data()));
    const cudaStream_t stream = member->stream.get();
    if (is_first) ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamWaitEvent(stream, begun_.get(), 0));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(destination, slot.buffer.data(),
                                               static_cast<size_t>(size), cudaMemcpyHostToDevice,
                                               stream));
    return CudaStatus(cudaEventRecord(slot.sent.get(), stream), "cudaEventRecord");
  }

  const cudaStream_t stream_;  // the caller's
  Event begun_;                // on it: the place of the Copy that is going on
  int device_ = 0;
  std::vector<Member> members_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  // The Copy that is going on.
  std::byte* destination_ = nullptr;
  int64_t size_ = 0;
  const Fill* fill_ = nullptr;
  int64_t next_ = 0;
  int64_t number_ = 0;
  int num_filling_ = 0;
  absl::Status status_;
};

WeightUpload::WeightUpload(std::unique_ptr<Crew> crew, const Clock* clock)
    : crew_(std::move(crew)), clock_(clock), start_(clock->Monotonic()) {}
WeightUpload::~WeightUpload() = default;
WeightUpload::WeightUpload(WeightUpload&&) noexcept = default;

absl::StatusOr<WeightUpload> WeightUpload::Make(cudaStream_t stream, const Clock* clock) {
  ASSAY_ASSIGN_OR_RETURN(std::unique_ptr<Crew> crew, Crew::Make(stream));
  return WeightUpload(std::move(crew), clock);
}

absl::Status WeightUpload::Copy(void* destination, int64_t size, const Fill& fill) {
  num_bytes_ += size;
  return crew_->Copy(static_cast<std::byte*>(destination), size, fill);
}

absl::Status WeightUpload::Finish() {
  ASSAY_RETURN_IF_ERROR(crew_->Wait());
  const double seconds = absl::ToDoubleSeconds(clock_->Monotonic() - start_);
  const double gigabytes = static_cast<double>(num_bytes_) / 1e9;
  LogWith(spdlog::level::info, {},
          fmt::format("weights: {:.2f} GB in {:.2f} s, {:.1f} GB/s", gigabytes, seconds,
                      gigabytes / std::max(seconds, 1e-9)));
  return absl::OkStatus();
}

}  // namespace assay::engine::cuda
