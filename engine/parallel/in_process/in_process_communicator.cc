#include "engine/parallel/in_process/in_process_communicator.h"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

#include "base/status.h"

namespace assay::engine {
namespace {

// A barrier that can be used again, and ended.
class Barrier {
 public:
  explicit Barrier(int size) : size_(size) {}

  // False when it was ended.
  bool Wait() {
    std::unique_lock lock(mutex_);
    const uint64_t round = round_;
    if (++num_waiting_ == size_) {
      num_waiting_ = 0;
      ++round_;
      changed_.notify_all();
    }
    changed_.wait(lock, [&] { return ended_ || round_ != round; });
    return !ended_;
  }

  void End() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }

 private:
  const int size_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int num_waiting_ = 0;
  uint64_t round_ = 0;
  bool ended_ = false;
};

struct Group {
  Group(int size, size_t num_windows) : barrier(size), windows(num_windows) {}

  Barrier barrier;
  std::vector<std::vector<std::vector<std::byte>>> windows;  // by window, rank
};

class InProcessCommunicator final : public Communicator {
 public:
  InProcessCommunicator(int rank, int size, std::shared_ptr<Group> group)
      : rank_(rank), size_(size), group_(std::move(group)) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::byte* window(int index) const override { return Window(index, rank_).data(); }

  absl::StatusOr<GangParts> Share(int index, int64_t bytes, CUstream_st*) override {
    ASSAY_CHECK(bytes <= std::ssize(Window(index, rank_)), "{} bytes of window {}", bytes, index);
    if (!group_->barrier.Wait()) return absl::AbortedError("the gang was given up");
    GangParts gang;
    gang.num_ranks = size_;
    for (int rank = 0; rank < size_; ++rank) gang.parts[rank] = Window(index, rank).data();
    return gang;
  }

  absl::Status Health() override { return absl::OkStatus(); }
  void Abort() override { group_->barrier.End(); }

 private:
  std::vector<std::byte>& Window(int index, int rank) const {
    return group_->windows[static_cast<size_t>(index)][static_cast<size_t>(rank)];
  }

  const int rank_;
  const int size_;
  const std::shared_ptr<Group> group_;
};

}  // namespace

Communicators MakeInProcessCommunicators(int size, const std::vector<int64_t>& window_bytes) {
  const auto group = std::make_shared<Group>(size, window_bytes.size());
  for (size_t i = 0; i < window_bytes.size(); ++i) {
    group->windows[i].assign(static_cast<size_t>(size),
                             std::vector<std::byte>(static_cast<size_t>(window_bytes[i])));
  }
  Communicators communicators;
  for (int rank = 0; rank < size; ++rank) {
    communicators.push_back(std::make_unique<InProcessCommunicator>(rank, size, group));
  }
  return communicators;
}

}  // namespace assay::engine
