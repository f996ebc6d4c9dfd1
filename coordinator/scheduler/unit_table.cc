#include "coordinator/scheduler/unit_table.h"

namespace assay::coordinator {

void UnitTable::Grow(int32_t num_repeats) {
  if (num_repeats <= num_repeats_) return;
  num_repeats_ = num_repeats;
  words_.resize((static_cast<size_t>(num_units()) + kUnitsPerWord - 1) / kUnitsPerWord, 0);
}

void UnitTable::Set(int32_t index, UnitStatus status) {
  uint64_t& word = words_[static_cast<size_t>(index) / kUnitsPerWord];
  word &= ~(uint64_t{3} << Shift(index));
  word |= static_cast<uint64_t>(status) << Shift(index);
}

}  // namespace assay::coordinator
