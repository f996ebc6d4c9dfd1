#include "engine/parallel/nccl/nccl_communicator.h"

#include <dlfcn.h>
#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <utility>

#include "base/status.h"
#include "engine/kernels/cuda/device.h"

namespace assay::engine::cuda {
namespace {

constexpr int64_t kAlignment = 256;

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// The functions that we call, from the library that this process has opened.
struct Nccl {
  decltype(&ncclCommInitAll) init_all = nullptr;
  decltype(&ncclCommDestroy) destroy = nullptr;
  decltype(&ncclCommAbort) abort = nullptr;
  decltype(&ncclCommGetAsyncError) async_error = nullptr;
  decltype(&ncclGetErrorString) error_string = nullptr;
  decltype(&ncclAllGather) all_gather = nullptr;
  decltype(&ncclAllReduce) all_reduce = nullptr;

  absl::Status Status(ncclResult_t result, const char* call) const {
    if (result == ncclSuccess || result == ncclInProgress) return absl::OkStatus();
    return Internal("{}: {}", call, error_string(result));
  }
};

absl::StatusOr<Nccl> OpenLibrary() {
  // Multicast can put the GPUs of a shared host out of service. Before the library reads it.
  setenv("NCCL_NVLS_ENABLE", "0", /*overwrite=*/1);
  void* const library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const reason = dlerror();
    return FailedPrecondition(
        "NCCL is not there, which GPUs without access to each other's memory need: {}",
        reason == nullptr ? "libnccl.so.2" : reason);
  }
  Nccl nccl;
  bool complete = true;
  const auto find = [&](const char* name, auto* function) {
    *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(dlsym(library, name));
    complete = complete && *function != nullptr;
  };
  find("ncclCommInitAll", &nccl.init_all);
  find("ncclCommDestroy", &nccl.destroy);
  find("ncclCommAbort", &nccl.abort);
  find("ncclCommGetAsyncError", &nccl.async_error);
  find("ncclGetErrorString", &nccl.error_string);
  find("ncclAllGather", &nccl.all_gather);
  find("ncclAllReduce", &nccl.all_reduce);
  if (!complete) return FailedPrecondition("libnccl.so.2 lacks functions of NCCL 2.18");
  return nccl;
}

// What the ranks share: to be aborted together.
struct Group {
  Nccl nccl;
  std::vector<std::atomic<ncclComm_t>> communicators;  // null once aborted or destroyed
  std::mutex mutex;
  std::vector<std::thread> aborts;

  explicit Group(size_t size) : communicators(size) {}
  ~Group() {
    for (std::thread& abort : aborts) abort.join();
    for (std::atomic<ncclComm_t>& communicator : communicators) {
      const ncclComm_t handle = communicator.exchange(nullptr);
      if (handle != nullptr) (void)nccl.destroy(handle);
    }
  }
};

class NcclRank final : public NcclCommunicator {
 public:
  NcclRank(int rank, std::shared_ptr<Group> group) : rank_(rank), group_(std::move(group)) {}

  absl::Status Allocate(const std::vector<int64_t>& window_bytes) {
    int64_t bytes = 0;
    for (const int64_t window : window_bytes) {
      windows_.push_back(bytes);
      bytes += Aligned(window);
    }
    received_ = bytes;
    bytes = NcclCommunicatorBytes(size(), window_bytes);
    ASSAY_ASSIGN_OR_RETURN(memory_, DeviceBuffer<std::byte>::Allocate(bytes));
    return SetBytes(memory_.data(), 0, bytes);
  }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(group_->communicators.size()); }
  std::byte* window(int index) const override {
    return memory_.data() + windows_[static_cast<size_t>(index)];
  }

  absl::StatusOr<GangParts> Share(int index, int64_t bytes, CUstream_st* stream) override {
    ASSAY_ASSIGN_OR_RETURN(const ncclComm_t communicator, Handle());
    // One place for what was received: it is read before the next Share on the stream writes it.
    const int64_t stride = Aligned(bytes);
    std::byte* const received = memory_.data() + received_;
    ASSAY_RETURN_IF_ERROR(group_->nccl.Status(
        group_->nccl.all_gather(window(index), received, static_cast<size_t>(stride), ncclInt8,
                                communicator, stream),
        "ncclAllGather"));
    GangParts gang;
    gang.num_ranks = size();
    for (int rank = 0; rank < size(); ++rank) gang.parts[rank] = received + rank * stride;
    return gang;
  }

  absl::Status AllReduceSum(__nv_bfloat16* values, int64_t count, CUstream_st* stream) override {
    ASSAY_ASSIGN_OR_RETURN(const ncclComm_t communicator, Handle());
    return group_->nccl.Status(group_->nccl.all_reduce(values, values, static_cast<size_t>(count),
                                                       ncclBfloat16, ncclSum, communicator, stream),
                               "ncclAllReduce");
  }

  absl::Status Health() override {
    ASSAY_ASSIGN_OR_RETURN(const ncclComm_t communicator, Handle());
    ncclResult_t result = ncclSuccess;
    ASSAY_RETURN_IF_ERROR(group_->nccl.Status(group_->nccl.async_error(communicator, &result),
                                              "ncclCommGetAsyncError"));
    return group_->nccl.Status(result, "NCCL, behind our back");
  }

  // NCCL ends the waits at once, but comes back only when all ranks are aborted and all graphs with
  // their work are gone, which the waiting ranks hold: it gets threads of its own.
  void Abort() override {
    const std::lock_guard lock(group_->mutex);
    for (std::atomic<ncclComm_t>& communicator : group_->communicators) {
      const ncclComm_t handle = communicator.exchange(nullptr);
      if (handle == nullptr) continue;
      group_->aborts.emplace_back([abort = group_->nccl.abort, handle] { (void)abort(handle); });
    }
  }

 private:
  absl::StatusOr<ncclComm_t> Handle() const {
    const ncclComm_t handle = group_->communicators[static_cast<size_t>(rank_)].load();
    if (handle == nullptr) return absl::AbortedError("the gang was given up");
    return handle;
  }

  const int rank_;
  const std::shared_ptr<Group> group_;
  DeviceBuffer<std::byte> memory_;
  std::vector<int64_t> windows_;  // offsets
  int64_t received_ = 0;          // likewise
};

}  // namespace

int64_t NcclCommunicatorBytes(int size, const std::vector<int64_t>& window_bytes) {
  int64_t bytes = 0;
  int64_t largest = 0;
  for (const int64_t window : window_bytes) {
    bytes += Aligned(window);
    largest = std::max(largest, Aligned(window));
  }
  return bytes + size * largest;
}

absl::StatusOr<std::vector<std::unique_ptr<NcclCommunicator>>> MakeNcclCommunicators(
    std::span<const int> devices, const std::vector<int64_t>& window_bytes) {
  const auto group = std::make_shared<Group>(devices.size());
  ASSAY_ASSIGN_OR_RETURN(group->nccl, OpenLibrary());
  std::vector<ncclComm_t> handles(devices.size());
  ASSAY_RETURN_IF_ERROR(group->nccl.Status(
      group->nccl.init_all(handles.data(), static_cast<int>(devices.size()), devices.data()),
      "ncclCommInitAll"));
  for (size_t i = 0; i < handles.size(); ++i) group->communicators[i] = handles[i];
  std::vector<std::unique_ptr<NcclCommunicator>> communicators;
  for (size_t i = 0; i < devices.size(); ++i) {
    ASSAY_RETURN_IF_ERROR(UseDevice(devices[i]).status());
    auto rank = std::make_unique<NcclRank>(static_cast<int>(i), group);
    ASSAY_RETURN_IF_ERROR(rank->Allocate(window_bytes));
    communicators.push_back(std::move(rank));
  }
  return communicators;
}

}  // namespace assay::engine::cuda
