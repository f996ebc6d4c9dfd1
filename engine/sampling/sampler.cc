#include "engine/sampling/sampler.h"

#include <algorithm>
#include <cmath>

#include "engine/kernels/cpu/kernel_table.h"
#include "engine/sampling/philox.h"

namespace assay::engine {

int32_t Sampler::Sample(std::span<const float> logits, const SamplingParams& params,
                        uint64_t position) {
  const cpu::KernelTable& kernels = cpu::Kernels();
  const int64_t size = static_cast<int64_t>(logits.size());
  const float maximum = kernels.maximum(logits.data(), size);
  // Greedy, or nothing to draw from: no number at all, or an infinity that owns all mass.
  if (params.temperature <= 0 || !std::isfinite(maximum)) {
    const auto first = std::find(logits.begin(), logits.end(), maximum);
    return first == logits.end() ? 0 : static_cast<int32_t>(first - logits.begin());
  }

  masses_.resize(size);
  float total =
      kernels.exponentials(logits.data(), maximum, 1.0f / params.temperature, size, masses_.data());

  // A token with less than the tail's mass divided by the vocabulary cannot be needed to reach
  // top_p: all such tokens together do not make up the tail. What is left is usually a handful.
  // Half of the bound leaves room for rounding.
  const bool cuts_tail = params.top_k <= 0 && params.top_p < 1;
  const float least =
      cuts_tail ? 0.5f * (1 - params.top_p) * total / static_cast<float>(size) : 0.0f;
  candidates_.clear();
  for (int64_t i = 0; i < size; ++i) {
    if (masses_[i] > least) candidates_.push_back({masses_[i], static_cast<int32_t>(i)});
  }
  if (params.top_k > 0) total = KeepTopK(params.top_k);

  // A heap hands out rank after rank, so that only the ranks that are needed get sorted.
  std::make_heap(candidates_.begin(), candidates_.end(),
                 [](const Candidate& a, const Candidate& b) { return RanksBefore(b, a); });
  const double draw = UniformDraw(params.seed, position);
  return params.top_p < 1 ? DrawFromNucleus(params.top_p * total, draw) : DrawFromAll(total, draw);
}

float Sampler::KeepTopK(int top_k) {
  if (top_k < static_cast<int>(candidates_.size())) {
    std::nth_element(candidates_.begin(), candidates_.begin() + top_k - 1, candidates_.end(),
                     RanksBefore);
    candidates_.resize(top_k);
  }
  // Summed in rank order: what nth_element left is in no defined order.
  std::sort(candidates_.begin(), candidates_.end(), RanksBefore);
  float total = 0;
  for (const Candidate& candidate : candidates_) total += candidate.mass;
  return total;
}

Sampler::Candidate Sampler::TakeNextRank() {
  std::pop_heap(candidates_.begin(), candidates_.end(),
                [](const Candidate& a, const Candidate& b) { return RanksBefore(b, a); });
  const Candidate next = candidates_.back();
  candidates_.pop_back();
  return next;
}

int32_t Sampler::DrawFromAll(float total, double draw) {
  const double target = draw * total;
  float running = 0;
  while (true) {
    const Candidate next = TakeNextRank();
    running += next.mass;
    // Rounding may leave the sum of all below the target: the last rank takes it.
    if (running > target || candidates_.empty()) return next.id;
  }
}

int32_t Sampler::DrawFromNucleus(float wanted_mass, double draw) {
  nucleus_.clear();
  float mass = 0;
  do {
    nucleus_.push_back(TakeNextRank());
    mass += nucleus_.back().mass;
  } while (mass < wanted_mass && !candidates_.empty());

  const double target = draw * mass;
  float running = 0;
  for (const Candidate& candidate : nucleus_) {
    running += candidate.mass;
    if (running > target) return candidate.id;
  }
  return nucleus_.back().id;
}

}  // namespace assay::engine
