#include "engine/tokenizer/token_index.h"

namespace assay::engine {

TokenIndex::TokenIndex(const std::vector<std::pair<std::string_view, int32_t>>& entries) {
  if (entries.empty()) return;
  size_t num_slots = 2;
  while (num_slots < 2 * entries.size()) num_slots *= 2;
  slots_.resize(num_slots);
  mask_ = num_slots - 1;
  for (const auto& [key, id] : entries) {
    if (Find(key).has_value()) continue;
    const uint64_t hash = Hash(key);
    size_t i = hash & mask_;
    while (slots_[i].data != nullptr) i = (i + 1) & mask_;
    slots_[i] = {key.data(), static_cast<uint32_t>(key.size()), static_cast<uint32_t>(hash >> 32),
                 id};
  }
}

}  // namespace assay::engine
