#include "coordinator/scheduler/length_table.h"

#include <algorithm>
#include <numeric>

namespace assay::coordinator {

LengthTable::LengthTable(int32_t num_items)
    : lengths_(static_cast<size_t>(num_items)), order_(static_cast<size_t>(num_items)) {
  std::iota(order_.begin(), order_.end(), 0);
}

void LengthTable::Seed(const std::vector<double>& mean_tokens) {
  for (size_t i = 0; i < mean_tokens.size() && i < lengths_.size(); ++i) {
    if (mean_tokens[i] <= 0 || lengths_[i].num_samples > 0) continue;
    lengths_[i] = {mean_tokens[i], 1};
    total_tokens_ += mean_tokens[i];
    ++num_samples_;
  }
  num_recorded_since_sort_ = static_cast<int64_t>(lengths_.size());
}

void LengthTable::Record(int32_t item, int64_t completion_tokens) {
  if (item < 0 || static_cast<size_t>(item) >= lengths_.size()) return;
  Length& length = lengths_[static_cast<size_t>(item)];
  length.total_tokens += static_cast<double>(completion_tokens);
  ++length.num_samples;
  total_tokens_ += static_cast<double>(completion_tokens);
  ++num_samples_;
  ++num_recorded_since_sort_;
}

int64_t LengthTable::Expected(int32_t item) const {
  const Length& length = lengths_[static_cast<size_t>(item)];
  if (length.num_samples == 0) return static_cast<int64_t>(MeanTokens());
  return static_cast<int64_t>(length.total_tokens / length.num_samples);
}

double LengthTable::MeanTokens() const {
  return num_samples_ == 0 ? 0 : total_tokens_ / static_cast<double>(num_samples_);
}

const std::vector<int32_t>& LengthTable::Order() {
  const auto enough = std::max<int64_t>(16, static_cast<int64_t>(lengths_.size()) / 16);
  if (num_recorded_since_sort_ >= enough) {
    std::vector<int64_t> expected(lengths_.size());
    for (size_t i = 0; i < lengths_.size(); ++i) expected[i] = Expected(static_cast<int32_t>(i));
    std::iota(order_.begin(), order_.end(), 0);
    std::stable_sort(order_.begin(), order_.end(), [&](int32_t a, int32_t b) {
      return expected[static_cast<size_t>(a)] > expected[static_cast<size_t>(b)];
    });
    num_recorded_since_sort_ = 0;
    ++version_;
  }
  return order_;
}

}  // namespace assay::coordinator
