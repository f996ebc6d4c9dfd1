#include "worker/agent/gpu_gangs.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "base/status.h"

namespace assay::worker {
namespace {

// Context and kernels, captured graphs, and the engine's own reserve (of a gang 1 GiB).
constexpr int64_t kRuntimeBytes = int64_t{2} << 30;

std::vector<std::string> Split(const std::string& list) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (true) {
    const size_t comma = list.find(',', begin);
    parts.push_back(list.substr(begin, comma - begin));
    if (comma == std::string::npos) return parts;
    begin = comma + 1;
  }
}

absl::StatusOr<std::vector<Gpu>> FindGpus(const std::string& list, const std::vector<Gpu>& gpus) {
  std::vector<Gpu> found;
  for (const std::string& wanted : Split(list)) {
    // UUIDs may be cut short, as in CUDA_VISIBLE_DEVICES.
    const auto gpu = std::ranges::find_if(gpus, [&wanted](const Gpu& candidate) {
      return wanted == std::to_string(candidate.index) ||
             (wanted.starts_with("GPU-") && candidate.uuid.starts_with(wanted));
    });
    if (gpu == gpus.end()) {
      return InvalidArgument("there is no GPU '{}': this machine has {}, numbered from 0", wanted,
                             gpus.size());
    }
    if (std::ranges::any_of(found, [&](const Gpu& other) { return other.uuid == gpu->uuid; })) {
      return InvalidArgument("GPU '{}' is named twice in '{}'", wanted, list);
    }
    found.push_back(*gpu);
  }
  return found;
}

}  // namespace

int64_t GpuGang::memory_bytes() const {
  int64_t smallest = gpus.empty() ? 0 : gpus.front().memory_bytes;
  for (const Gpu& gpu : gpus) smallest = std::min(smallest, gpu.memory_bytes);
  return std::max<int64_t>(smallest - kRuntimeBytes, 0) * std::ssize(gpus);
}

std::string GpuGang::name() const {
  if (gpus.empty()) return {};
  return gpus.size() == 1 ? gpus[0].name : fmt::format("{}x {}", gpus.size(), gpus[0].name);
}

std::string GpuGang::device() const {
  std::vector<size_t> ranks;
  for (size_t i = 0; i < gpus.size(); ++i) ranks.push_back(i);
  return fmt::format("cuda:{}", fmt::join(ranks, ","));
}

std::string GpuGang::environment() const {
  std::vector<std::string> uuids;
  for (const Gpu& gpu : gpus) uuids.push_back(gpu.uuid);
  return fmt::format("CUDA_VISIBLE_DEVICES={}", fmt::join(uuids, ","));
}

absl::StatusOr<std::vector<Gpu>> SelectGpus(const std::string& wanted, const std::string& visible,
                                            const std::vector<Gpu>& gpus) {
  std::vector<Gpu> selected = gpus;
  if (wanted != "all") {
    ASSAY_ASSIGN_OR_RETURN(selected, FindGpus(wanted, gpus));
  } else if (!visible.empty()) {
    absl::StatusOr<std::vector<Gpu>> listed = FindGpus(visible, gpus);
    if (!listed.ok()) {
      return InvalidArgument("CUDA_VISIBLE_DEVICES: {}; or name GPUs instead of 'all'",
                             Message(listed.status()));
    }
    selected = *std::move(listed);
  }
  if (selected.empty()) return InvalidArgument("this machine has no GPU");
  for (const Gpu& gpu : selected) {
    if (gpu.name == selected.front().name) continue;
    return InvalidArgument(
        "GPU {} is a {} and GPU {} a {}: samples of one worker come from one kind; start a worker "
        "for each",
        selected.front().index, selected.front().name, gpu.index, gpu.name);
  }
  return selected;
}

absl::StatusOr<std::vector<GpuGang>> FormGangs(const std::vector<Gpu>& gpus,
                                               const std::vector<int>& sizes) {
  std::vector<GpuGang> gangs;
  size_t next = 0;
  while (next < gpus.size()) {
    const int size = sizes.empty() ? 1 : sizes[std::min(gangs.size(), sizes.size() - 1)];
    if (size < 1 || static_cast<size_t>(size) > gpus.size() - next) {
      return InvalidArgument("{} GPUs do not divide into gangs of {}: {} are left for one of {}",
                             gpus.size(), fmt::join(sizes, ", then "), gpus.size() - next, size);
    }
    GpuGang& gang = gangs.emplace_back();
    for (int i = 0; i < size; ++i) gang.gpus.push_back(gpus[next++]);
  }
  if (gangs.size() < sizes.size()) {
    return InvalidArgument("{} GPUs do not divide into gangs of {}: none is left for one of {}",
                           gpus.size(), fmt::join(sizes, ", then "), sizes[gangs.size()]);
  }
  return gangs;
}

}  // namespace assay::worker
