#include "coordinator/scheduler/slot_policy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <tuple>

namespace assay::coordinator {
namespace {

constexpr double kMib = 1024.0 * 1024;
constexpr double kGib = 1024 * kMib;

enum class Round { kUp, kDown };

// Per GPU, to a tenth: a need rounds up and a slot down, so that 74.04 and 73.96 never look equal.
std::string Memory(int64_t bytes, int32_t num_gpus, Round round) {
  const double each = static_cast<double>(bytes) / num_gpus;
  const double tenths = each / (each < kGib ? kMib : kGib) * 10;
  return fmt::format("{:.1f} {}",
                     (round == Round::kUp ? std::ceil(tenths) : std::floor(tenths)) / 10,
                     each < kGib ? "MiB" : "GiB");
}

std::string Describe(int32_t num_gpus, int64_t bytes, bool with_gpus, Round round) {
  const std::string gpus = fmt::format("{} GPU{}", num_gpus, num_gpus == 1 ? "" : "s");
  if (bytes == 0) return gpus;
  const std::string memory = Memory(bytes, num_gpus, round);
  return with_gpus ? fmt::format("{} of {}", gpus, memory) : memory;
}

bool SameNumerics(const SlotNeed& need, const SlotShape& slot) {
  return need.numerics_version.empty() || slot.numerics_version.empty() ||
         need.numerics_version == slot.numerics_version;
}

}  // namespace

bool Fits(const SlotNeed& need, const SlotShape& slot) {
  return SameNumerics(need, slot) && need.tensor_parallel_size == slot.tensor_parallel_size &&
         (slot.memory_bytes == 0 || need.BytesOn(slot) <= slot.memory_bytes);
}

std::string WhyNoSlotFits(const SlotNeed& need, const std::set<SlotShape>& slots) {
  if (slots.empty()) return "no worker takes work now";
  if (std::ranges::any_of(slots, [&](const SlotShape& slot) { return Fits(need, slot); })) {
    return {};
  }
  std::set<std::string> offered;
  for (const SlotShape& slot : slots) offered.insert(slot.numerics_version);
  if (std::ranges::none_of(slots, [&](const SlotShape& s) { return SameNumerics(need, s); })) {
    return fmt::format("needs a slot with {}; workers offer {}", need.numerics_version,
                       fmt::join(offered, ", "));
  }
  // The most telling comparison is with a gang of the right size; without one, with the largest.
  const auto largest = std::ranges::max_element(slots, {}, [&](const SlotShape& slot) {
    return std::tuple(SameNumerics(need, slot),
                      slot.tensor_parallel_size == need.tensor_parallel_size,
                      slot.tensor_parallel_size, slot.memory_bytes);
  });
  // Between slots of one only the memory matters, and a CPU slot has no GPU to speak of.
  const bool with_gpus = need.tensor_parallel_size > 1 || largest->tensor_parallel_size > 1;
  return fmt::format(
      "needs {}; the largest slot has {}{}",
      Describe(need.tensor_parallel_size, need.BytesOn(*largest), with_gpus, Round::kUp),
      Describe(largest->tensor_parallel_size, largest->memory_bytes, with_gpus, Round::kDown),
      largest->tensor_parallel_size > need.tensor_parallel_size
          ? ", and a slot runs only cells of its own number"
          : "");
}

}  // namespace assay::coordinator
