// What a caller asks of the engine, and what comes back.
#pragma once

#include <absl/time/time.h>

#include <cstdint>
#include <string>
#include <vector>

#include "engine/sampling/sampling_params.h"

namespace assay::engine {

// budget_forcing.h. Zero and empty: off.
struct BudgetForcingParams {
  int64_t max_thinking_tokens = 0;
  int num_extensions = 0;
  std::vector<int32_t> extension_ids;        // tokens of "Wait"
  std::vector<int32_t> end_of_thinking_ids;  // tokens of "</think>"
  std::vector<int32_t> forced_stop_ids;      // tokens put in at the budget
  bool enabled() const { return max_thinking_tokens > 0 || num_extensions > 0; }
};

struct GenerationRequest {
  int64_t id = 0;  // chosen by the caller, unique while in the engine
  std::vector<int32_t> prompt_ids;
  int64_t max_new_tokens = 0;
  std::vector<int32_t> stop_ids;  // end-of-sequence ids; a stop id is kept in output_ids
  SamplingParams sampling;
  BudgetForcingParams budget_forcing;
  int64_t expected_tokens = 0;  // longest-predicted-first among the waiting; 0 unknown
};

enum class FinishReason { kStop, kLength, kContext, kRejected };

struct GenerationResult {
  int64_t id = 0;
  std::vector<int32_t> output_ids;  // forced tokens included
  FinishReason finish_reason = FinishReason::kStop;
  std::string error;           // kRejected: why
  absl::Duration queue_time;   // submission to first scheduling
  absl::Duration ttft;         // submission to first token
  absl::Duration e2e;          // submission to last token
  double mean_batch_size = 0;  // over this sequence's decode steps
  int num_preemptions = 0;
};

}  // namespace assay::engine
