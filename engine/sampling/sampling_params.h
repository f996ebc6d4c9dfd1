// How a token is chosen from its logits.
#pragma once

#include <cstdint>

namespace assay::engine {

struct SamplingParams {
  float temperature = 0;  // 0 is greedy
  float top_p = 1;        // keeps the smallest set whose mass reaches top_p
  int top_k = 0;          // 0 is off; applied before top_p, which renormalizes over it
  uint64_t seed = 0;      // the unit's seed: the Philox key
};

}  // namespace assay::engine
