#include "engine/sampling/sampler.h"

#include <algorithm>
#include <cmath>

#include "engine/kernels/cpu/kernel_table.h"
#include "engine/kernels/philox.h"
#include "engine/kernels/token_mass.h"

namespace assay::engine {
namespace {

// floor(word / 2^64 * total): a running sum exceeds the product where it exceeds its floor.
uint64_t Share(uint64_t word, uint64_t total) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>(Wide{word} * total >> 64);
}

}  // namespace

int32_t Sampler::Sample(std::span<const float> logits, const SamplingParams& params,
                        uint64_t position) {
  const cpu::KernelTable& kernels = cpu::Kernels();
  const int64_t size = static_cast<int64_t>(logits.size());
  const float maximum = kernels.maximum(logits.data(), size);
  const float inverse_temperature = 1.0f / params.temperature;
  // Greedy, or nothing to draw from: no number at all, or an infinity that owns all mass.
  if (params.temperature <= 0 || !std::isfinite(inverse_temperature) || !std::isfinite(maximum)) {
    const auto first = std::find(logits.begin(), logits.end(), maximum);
    return first == logits.end() ? 0 : static_cast<int32_t>(first - logits.begin());
  }

  masses_.resize(size);
  kernels.exponentials(logits.data(), maximum, inverse_temperature, size, masses_.data());
  uint64_t total = 0;
  for (const float mass : masses_) total += TokenMass(mass);

  // A token with less than the tail's mass divided by the vocabulary cannot be needed to reach
  // top_p: all such tokens together do not make up the tail. What is left is usually a handful.
  // Half of the bound leaves room for an exponential that is not monotonic in the last bit.
  const bool cuts_tail = params.top_k <= 0 && params.top_p < 1;
  const uint64_t least =
      cuts_tail ? (total - NucleusMass(params.top_p, total)) / (2 * logits.size()) : 0;
  candidates_.clear();
  for (int64_t i = 0; i < size; ++i) {
    const uint64_t mass = TokenMass(masses_[i]);
    if (mass <= least) continue;
    candidates_.push_back(
        {TokenLevel(maximum, logits[i], inverse_temperature), static_cast<int32_t>(i), mass});
  }
  if (params.top_k > 0) total = KeepTopK(params.top_k);

  // A heap hands out rank after rank, so that only the ranks that are needed get sorted.
  std::make_heap(candidates_.begin(), candidates_.end(),
                 [](const Candidate& a, const Candidate& b) { return RanksBefore(b, a); });
  const uint64_t word = UniformWord(params.seed, position);
  return params.top_p < 1 ? DrawFromNucleus(NucleusMass(params.top_p, total), word)
                          : DrawFromAll(total, word);
}

uint64_t Sampler::KeepTopK(int top_k) {
  if (top_k < static_cast<int>(candidates_.size())) {
    std::nth_element(candidates_.begin(), candidates_.begin() + top_k - 1, candidates_.end(),
                     RanksBefore);
    candidates_.resize(top_k);
  }
  uint64_t total = 0;
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

int32_t Sampler::DrawFromAll(uint64_t total, uint64_t word) {
  const uint64_t target = Share(word, total);
  uint64_t running = 0;
  while (true) {
    const Candidate next = TakeNextRank();
    running += next.mass;
    if (running > target) return next.id;
  }
}

int32_t Sampler::DrawFromNucleus(uint64_t wanted_mass, uint64_t word) {
  nucleus_.clear();
  uint64_t mass = 0;
  do {
    nucleus_.push_back(TakeNextRank());
    mass += nucleus_.back().mass;
  } while (mass < wanted_mass);

  const uint64_t target = Share(word, mass);
  uint64_t running = 0;
  size_t rank = 0;
  while (true) {
    running += nucleus_[rank].mass;
    if (running > target) return nucleus_[rank].id;
    ++rank;
  }
}

}  // namespace assay::engine
