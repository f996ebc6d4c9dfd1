// From logits to a token id: logits / temperature, top_k, top_p over what top_k
// kept, and one draw from the renormalized rest.
//
// Definition, for any backend: tokens are ranked by logit (its level), ties to the lower id. top_k
// keeps the first k ranks. top_p keeps the fewest ranks whose mass reaches top_p of what top_k
// kept, at least one. The draw u in [0, 1) takes the first rank at which the running sum of the
// kept masses exceeds u times their total. Greedy takes rank 0. A NaN ranks as impossible; logits
// without any number give id 0. Levels and masses are integers (engine/kernels/token_mass.h), so
// that backends which add in another order draw the same id.
//
// In rank order (not in the order of ids) the likeliest token owns [0, p) in every arm of a paired
// comparison, so that arms that agree on it draw it together.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/sampling/sampling_params.h"

namespace assay::engine {

// Keeps scratch memory between calls. Not thread-safe.
class Sampler {
 public:
  // `position` counts the sequence's output tokens before this one.
  int32_t Sample(std::span<const float> logits, const SamplingParams& params, uint64_t position);

 private:
  struct Candidate {
    uint32_t level;
    int32_t id;
    uint64_t mass;
  };

  static bool RanksBefore(const Candidate& a, const Candidate& b) {
    return a.level < b.level || (a.level == b.level && a.id < b.id);
  }

  // Leaves the first top_k ranks in candidates_; returns their mass.
  uint64_t KeepTopK(int top_k);
  // Takes the next rank out of candidates_, a heap.
  Candidate TakeNextRank();
  // The token at which the running sum of the kept masses exceeds word / 2^64 of their total.
  int32_t DrawFromAll(uint64_t total, uint64_t word);
  int32_t DrawFromNucleus(uint64_t wanted_mass, uint64_t word);

  std::vector<float> masses_;
  std::vector<Candidate> candidates_;
  std::vector<Candidate> nucleus_;
};

}  // namespace assay::engine
