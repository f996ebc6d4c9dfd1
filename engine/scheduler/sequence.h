// One request on its way through the engine.
#pragma once

#include <absl/time/time.h>

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "engine/kv/block_allocator.h"
#include "engine/scheduler/budget_forcing.h"
#include "engine/scheduler/request.h"

namespace assay::engine {

// Does not move: budget_forcing points into request.
struct Sequence {
  explicit Sequence(GenerationRequest asked)
      : request(std::move(asked)),
        budget_forcing(&request.budget_forcing),
        tokens(request.prompt_ids) {}
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  int64_t prompt_len() const { return static_cast<int64_t>(request.prompt_ids.size()); }
  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()); }
  int64_t output_len() const { return num_tokens() - prompt_len(); }
  // With those that steps in flight draw.
  int64_t num_planned_tokens() const { return num_tokens() + num_pending; }
  // Tokens whose keys and values no planned step computes; 1 while decoding.
  int64_t num_uncomputed() const { return num_planned_tokens() - num_computed; }

  const GenerationRequest request;
  BudgetForcing budget_forcing;
  std::vector<int32_t> tokens;  // prompt, then output, as far as it is known
  int num_pending = 0;          // tokens behind them that steps in flight draw
  int last_draw = 0;         // with num_pending > 0: the place of the last among its step's draws
  int64_t num_computed = 0;  // tokens whose keys and values planned steps put into the cache
  std::vector<int32_t> block_table;
  // While preempted: where the blocks of the computed tokens are, when they were copied out.
  std::vector<int32_t> host_blocks;

  // Prompt blocks published for sharing so far, and the serial of the last.
  int64_t num_published_blocks = 0;
  int64_t prefix_serial = BlockAllocator::kNoPrefix;

  int64_t submit_order = 0;
  int64_t start_order = 0;  // of the first start; a preempted sequence keeps its own
  absl::Duration submit_time;
  std::optional<absl::Duration> start_time;
  std::optional<absl::Duration> first_token_time;
  int64_t num_decode_steps = 0;
  int64_t sum_of_batch_sizes = 0;
  int num_preemptions = 0;
};

}  // namespace assay::engine
