#include "engine/decoder/cuda/pinned_blocks.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <string>

#include "base/log.h"

namespace assay::engine::cuda {
namespace {

// Small, as the driver holds up launches while it pins: 2 to 8 ms for 64 MiB, longer than a small
// model's step, which is launched that far ahead.
constexpr int64_t kSlabBytes = int64_t{16} << 20;
// Prepared behind what is in use: a few long sequences.
constexpr int64_t kBytesAhead = int64_t{1} << 30;

// Whether a quarter of the machine's memory stays available when `bytes` more are taken.
bool LeavesEnough(int64_t bytes) {
  std::ifstream file("/proc/meminfo");
  int64_t total_kib = 0;
  int64_t available_kib = 0;
  std::string name, rest;
  for (int64_t value = 0; file >> name >> value && std::getline(file, rest);) {
    if (name == "MemTotal:") total_kib = value;
    if (name == "MemAvailable:") available_kib = value;
  }
  return available_kib - bytes / 1024 >= total_kib / 4;
}

}  // namespace

PinnedBlocks::PinnedBlocks(int device, int64_t block_bytes, int64_t max_bytes)
    : device_(device),
      block_bytes_(block_bytes),
      blocks_per_slab_(std::clamp<int64_t>(kSlabBytes / block_bytes, 1,
                                           std::max<int64_t>(max_bytes / block_bytes, 1))),
      slabs_(static_cast<size_t>(max_bytes / block_bytes / blocks_per_slab_)) {
  if (slabs_.empty()) return;
  NoteUse(-1);
  thread_ = std::thread([this] { Prepare(); });
}

PinnedBlocks::~PinnedBlocks() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
  const auto bytes = static_cast<size_t>(blocks_per_slab_ * block_bytes_);
  for (int64_t i = 0; i < num_slabs_.load(); ++i) {
    (void)cudaHostUnregister(slabs_[static_cast<size_t>(i)]);
    (void)munmap(slabs_[static_cast<size_t>(i)], bytes);
  }
}

void PinnedBlocks::NoteUse(int64_t block) {
  const int64_t slab_bytes = blocks_per_slab_ * block_bytes_;
  const int64_t ahead = (kBytesAhead + slab_bytes - 1) / slab_bytes;
  const int64_t num_used = block < 0 ? 0 : block / blocks_per_slab_ + 1;
  const std::lock_guard lock(mutex_);
  const int64_t wanted = std::min(num_used + ahead, static_cast<int64_t>(slabs_.size()));
  if (wanted <= num_wanted_) return;
  num_wanted_ = wanted;
  changed_.notify_all();
}

void PinnedBlocks::Prepare() {
  (void)cudaSetDevice(device_);
  while (true) {
    const int64_t next = num_slabs_.load();
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || next < num_wanted_; });
      if (stopping_) return;
    }
    std::byte* slab = PinSlab();
    if (slab == nullptr) {
      LogWith(
          spdlog::level::warn, {},
          fmt::format("the machine has no more than {} MiB to pin for preempted sequences: what "
                      "finds no room there is computed again",
                      next * blocks_per_slab_ * block_bytes_ >> 20));
      return;
    }
    slabs_[static_cast<size_t>(next)] = slab;
    num_slabs_.store(next + 1);
  }
}

std::byte* PinnedBlocks::PinSlab() const {
  const auto bytes = static_cast<size_t>(blocks_per_slab_ * block_bytes_);
  if (!LeavesEnough(blocks_per_slab_ * block_bytes_)) return nullptr;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  // The system finds the pages here, not inside the driver's lock.
  std::memset(memory, 0, bytes);
  if (cudaHostRegister(memory, bytes, cudaHostRegisterDefault) != cudaSuccess) {
    (void)cudaGetLastError();
    (void)munmap(memory, bytes);
    return nullptr;
  }
  return static_cast<std::byte*>(memory);
}

}  // namespace assay::engine::cuda
