#include "engine/parallel/peer/peer_communicator.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "base/status.h"
#include "engine/kernels/cuda/device.h"

namespace assay::engine::cuda {
namespace {

constexpr int64_t kAlignment = 256;
// Blocks of 512 threads that run at once on a multiprocessor: what kernels that wait for their
// peers are compiled for.
constexpr int kBlocksPerMultiprocessor = 2;
// Of all that wait on a device whose ranks share it: the rest is for what they wait for.
constexpr int kBlocksOfSharedDevice = 32;

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Of a part that is pushed rather than read where it is. Each rank sends it to every other: among
// many, reading in two shots moves less.
constexpr int64_t kMostInboxBytes = int64_t{1} << 20;

// A rank's memory: epochs, what the others have reached, windows, and their inboxes.
struct Layout {
  Layout(int size, const std::vector<int64_t>& window_bytes) {
    arrived = PeerSync::kMaxBlocks * int64_t{sizeof(uint32_t)};
    bytes = Aligned(arrived * (1 + size));
    for (const int64_t window : window_bytes) {
      windows.push_back(bytes);
      bytes += Aligned(window);
    }
    first_inbox = bytes;
    for (const int64_t window : window_bytes) {
      inboxes.push_back(bytes);
      inbox_bytes.push_back(std::min(Aligned(window), kMostInboxBytes));
      bytes += size * inbox_bytes.back();
    }
  }

  int64_t arrived = 0;  // offset, and the size of one rank's row
  std::vector<int64_t> windows;
  int64_t first_inbox = 0;           // from here on there are inboxes
  std::vector<int64_t> inboxes;      // by window: the first rank's
  std::vector<int64_t> inbox_bytes;  // likewise, of one rank
  int64_t bytes = 0;
};

struct Group {
  Group(int size, const std::vector<int64_t>& window_bytes) : layout(size, window_bytes) {}

  uint32_t* Row(int of_rank, int from_rank) const {
    return reinterpret_cast<uint32_t*>(memory[static_cast<size_t>(of_rank)].data() +
                                       layout.arrived * (1 + from_rank));
  }

  const Layout layout;
  std::vector<DeviceBuffer<std::byte>> memory;  // by rank
  std::vector<bool> shares_device;              // by rank
  PinnedBuffer<uint32_t> aborted;               // [1]
  int num_blocks = PeerSync::kMaxBlocks;
};

class PeerCommunicator final : public Communicator {
 public:
  PeerCommunicator(int rank, std::shared_ptr<const Group> group)
      : rank_(rank), group_(std::move(group)) {
    sync_.num_blocks = group_->num_blocks;
    sync_.shares_device = group_->shares_device[static_cast<size_t>(rank)];
    sync_.rank = rank;
    sync_.epochs = reinterpret_cast<uint32_t*>(group_->memory[static_cast<size_t>(rank)].data());
    sync_.arrived = group_->Row(rank, 0);
    for (int peer = 0; peer < size(); ++peer) sync_.arrived_at[peer] = group_->Row(peer, rank);
    sync_.aborted = group_->aborted.data();
  }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(group_->memory.size()); }
  std::byte* window(int index) const override { return Window(index, rank_); }

  absl::StatusOr<GangParts> Share(int index, int64_t, CUstream_st*) override {
    GangParts gang;
    gang.num_ranks = size();
    gang.inbox.bytes = group_->layout.inbox_bytes[static_cast<size_t>(index)];
    for (int peer = 0; peer < size(); ++peer) {
      gang.parts[peer] = Window(index, peer);
      gang.inbox.from[peer] = Inbox(index, rank_, peer);
      gang.inbox.at[peer] = Inbox(index, peer, rank_);
    }
    gang.sync = sync_;
    return gang;
  }

  absl::Status Health() override { return absl::OkStatus(); }

  void Abort() override {
    std::atomic_ref<uint32_t>(*group_->aborted.data()).store(1, std::memory_order_release);
  }

 private:
  std::byte* Window(int index, int rank) const {
    return group_->memory[static_cast<size_t>(rank)].data() +
           group_->layout.windows[static_cast<size_t>(index)];
  }

  std::byte* Inbox(int index, int of_rank, int from_rank) const {
    const auto window = static_cast<size_t>(index);
    return group_->memory[static_cast<size_t>(of_rank)].data() + group_->layout.inboxes[window] +
           from_rank * group_->layout.inbox_bytes[window];
  }

  const int rank_;
  const std::shared_ptr<const Group> group_;
  PeerSync sync_;
};

bool CanAccess(int device, int peer) {
  int can = 0;
  if (cudaDeviceCanAccessPeer(&can, device, peer) == cudaSuccess) return can != 0;
  (void)cudaGetLastError();
  return false;
}

absl::Status EnableAccess(int device, int peer) {
  if (!CanAccess(device, peer)) {
    return FailedPrecondition("cuda:{} cannot read the memory of cuda:{}", device, peer);
  }
  const cudaError_t error = cudaDeviceEnablePeerAccess(peer, 0);
  if (error != cudaErrorPeerAccessAlreadyEnabled) {
    return CudaStatus(error, "cudaDeviceEnablePeerAccess");
  }
  (void)cudaGetLastError();
  return absl::OkStatus();
}

}  // namespace

bool HavePeerAccess(std::span<const int> devices) {
  for (const int device : devices) {
    for (const int peer : devices) {
      if (device != peer && !CanAccess(device, peer)) return false;
    }
  }
  return true;
}

int64_t PeerCommunicatorBytes(int size, const std::vector<int64_t>& window_bytes) {
  return Layout(size, window_bytes).bytes;
}

absl::StatusOr<Communicators> MakePeerCommunicators(std::span<const int> devices,
                                                    const std::vector<int64_t>& window_bytes) {
  const int size = static_cast<int>(devices.size());
  auto group = std::make_shared<Group>(size, window_bytes);
  ASSAY_ASSIGN_OR_RETURN(group->aborted, PinnedBuffer<uint32_t>::Allocate(1));
  group->aborted[0] = 0;
  for (const int device : devices) {
    ASSAY_ASSIGN_OR_RETURN(const DeviceProperties properties, UseDevice(device));
    const auto num_others = static_cast<int>(std::ranges::count(devices, device)) - 1;
    group->shares_device.push_back(num_others > 0);
    group->num_blocks =
        std::min(group->num_blocks,
                 num_others > 0 ? std::max(1, kBlocksOfSharedDevice / num_others)
                                : kBlocksPerMultiprocessor * properties.num_multiprocessors);
    for (const int peer : devices) {
      if (peer != device) ASSAY_RETURN_IF_ERROR(EnableAccess(device, peer));
    }
    ASSAY_ASSIGN_OR_RETURN(auto memory, DeviceBuffer<std::byte>::Allocate(group->layout.bytes));
    const int64_t first_inbox = group->layout.first_inbox;
    static_assert(PeerInbox::kNotArrived == 0xFFFFFFFF);  // so that bytes can be set
    ASSAY_RETURN_IF_ERROR(SetBytes(memory.data(), 0, first_inbox));
    ASSAY_RETURN_IF_ERROR(
        SetBytes(memory.data() + first_inbox, 0xFF, memory.bytes() - first_inbox));
    group->memory.push_back(std::move(memory));
  }
  Communicators communicators;
  for (int rank = 0; rank < size; ++rank) {
    communicators.push_back(std::make_unique<PeerCommunicator>(rank, group));
  }
  return communicators;
}

}  // namespace assay::engine::cuda
