#include "engine/decoder/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace assay::engine {
namespace {

double ScaleFrequency(double frequency, const RopeScaling& scaling) {
  const double wavelength = 2 * std::numbers::pi / frequency;
  const double original = static_cast<double>(scaling.original_max_position_embeddings);
  if (wavelength < original / scaling.high_freq_factor) return frequency;
  if (wavelength > original / scaling.low_freq_factor) return frequency / scaling.factor;
  const double smooth = (original / wavelength - scaling.low_freq_factor) /
                        (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1 - smooth) * frequency / scaling.factor + smooth * frequency;
}

}  // namespace

RopeTable::RopeTable(const ModelConfig& config) : half_(config.head_dim / 2) {
  for (int i = 0; i < half_; ++i) {
    double frequency = std::pow(config.rope_theta, -2.0 * i / config.head_dim);
    if (config.rope_scaling) frequency = ScaleFrequency(frequency, *config.rope_scaling);
    inverse_frequencies_.push_back(static_cast<float>(frequency));
  }
}

void RopeTable::EnsurePositions(int64_t num_positions) {
  const int64_t have = static_cast<int64_t>(cosines_.size()) / std::max(half_, 1);
  if (num_positions <= have) return;
  const int64_t wanted = std::max(num_positions, std::max<int64_t>(1024, 2 * have));
  cosines_.resize(wanted * half_);
  sines_.resize(wanted * half_);
  for (int64_t position = have; position < wanted; ++position) {
    for (int i = 0; i < half_; ++i) {
      const float angle = static_cast<float>(position) * inverse_frequencies_[i];
      cosines_[position * half_ + i] = static_cast<float>(std::cos(static_cast<double>(angle)));
      sines_[position * half_ + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
}

}  // namespace assay::engine
