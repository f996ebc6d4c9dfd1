#include "engine/scheduler/budget_forcing.h"

#include <algorithm>

namespace assay::engine {

bool BudgetForcing::EndsWithDelimiter(int64_t output_begin,
                                      const std::vector<int32_t>& tokens) const {
  const std::vector<int32_t>& delimiter = params_->end_of_thinking_ids;
  const int64_t output_len = static_cast<int64_t>(tokens.size()) - output_begin;
  return !delimiter.empty() && output_len >= static_cast<int64_t>(delimiter.size()) &&
         std::equal(delimiter.rbegin(), delimiter.rend(), tokens.rbegin());
}

int64_t BudgetForcing::Apply(int64_t output_begin, std::vector<int32_t>* tokens) {
  int64_t first_changed = static_cast<int64_t>(tokens->size());
  if (!thinking_) return first_changed;

  if (EndsWithDelimiter(output_begin, *tokens)) {
    if (extensions_left_ == 0) {
      thinking_ = false;
      return first_changed;
    }
    --extensions_left_;
    first_changed -= static_cast<int64_t>(params_->end_of_thinking_ids.size());
    tokens->resize(first_changed);
    tokens->insert(tokens->end(), params_->extension_ids.begin(), params_->extension_ids.end());
  }

  const int64_t budget_end = output_begin + params_->max_thinking_tokens;
  if (params_->max_thinking_tokens > 0 && static_cast<int64_t>(tokens->size()) >= budget_end) {
    // An extension may have overshot.
    first_changed = std::min(first_changed, budget_end);
    tokens->resize(budget_end);
    tokens->insert(tokens->end(), params_->forced_stop_ids.begin(), params_->forced_stop_ids.end());
    thinking_ = false;
  }
  return first_changed;
}

}  // namespace assay::engine
