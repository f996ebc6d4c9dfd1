// The state of every unit of one cell, two bits each.
//
// A unit is an (item, repeat) pair; its index is repeat * num_items + item, so that more repeats
// only append. A thousand units take 256 bytes: ten thousand cells and their units fit in a few
// megabytes. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace assay::coordinator {

enum class UnitStatus : uint8_t { kQueued = 0, kLeased = 1, kDone = 2, kQuarantined = 3 };
inline constexpr int kNumUnitStatuses = 4;

class UnitTable {
 public:
  // `num_items` of the benchmark, not of a sweep that wants only its first ones.
  explicit UnitTable(int32_t num_items) : num_items_(num_items) {}

  // Makes room for `num_repeats` repeats of every item; new units are queued. Never shrinks.
  void Grow(int32_t num_repeats);

  int32_t num_items() const { return num_items_; }
  int32_t num_repeats() const { return num_repeats_; }
  int64_t num_units() const { return int64_t{num_items_} * num_repeats_; }

  bool Contains(int32_t item, int32_t repeat) const {
    return item >= 0 && item < num_items_ && repeat >= 0 && repeat < num_repeats_;
  }
  int32_t IndexOf(int32_t item, int32_t repeat) const { return repeat * num_items_ + item; }
  int32_t ItemOf(int32_t index) const { return index % num_items_; }
  int32_t RepeatOf(int32_t index) const { return index / num_items_; }

  UnitStatus Get(int32_t index) const {
    const auto bits = words_[static_cast<size_t>(index) / kUnitsPerWord];
    return static_cast<UnitStatus>((bits >> Shift(index)) & 3u);
  }
  void Set(int32_t index, UnitStatus status);

 private:
  static constexpr size_t kUnitsPerWord = 32;
  static unsigned Shift(int32_t index) {
    return 2u * (static_cast<unsigned>(index) % static_cast<unsigned>(kUnitsPerWord));
  }

  int32_t num_items_;
  int32_t num_repeats_ = 0;
  std::vector<uint64_t> words_;
};

}  // namespace assay::coordinator
