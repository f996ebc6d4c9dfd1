// Budget forcing (s1, arXiv 2501.19393): a sequence's thinking is made longer by taking its
// end-of-thinking delimiter back and putting "Wait" in its place, or cut at a budget by putting the
// delimiter in. Tokens put in are part of the output and go through the model as sampled ones do.
//
//   thinking --delimiter, extensions left--> thinking (delimiter replaced by extension_ids)
//   thinking --delimiter, none left-------> answering
//   thinking --max_thinking_tokens reached--> answering (forced_stop_ids appended)
//
// A delimiter of several tokens has been emitted in part when its last token arrives; the parts are
// taken back, and the caller recomputes from `first_changed`.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/scheduler/request.h"

namespace assay::engine {

class BudgetForcing {
 public:
  // `params` outlives it.
  explicit BudgetForcing(const BudgetForcingParams* params)
      : params_(params), thinking_(params->enabled()), extensions_left_(params->num_extensions) {}

  // Looks at a sequence that has just got a sampled token: tokens [output_begin, end) are its
  // output. Rewrites their end where a rule applies and returns the index of the first token that
  // is not what it was with the sampled one appended; tokens->size() when nothing changed.
  int64_t Apply(int64_t output_begin, std::vector<int32_t>* tokens);

 private:
  bool EndsWithDelimiter(int64_t output_begin, const std::vector<int32_t>& tokens) const;

  const BudgetForcingParams* params_;
  bool thinking_;
  int extensions_left_;
};

}  // namespace assay::engine
