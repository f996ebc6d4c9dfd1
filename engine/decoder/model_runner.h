// The seam between the engine and a backend: a loaded model and its KV cache, advanced step by
// step.
//
// Above it stand the scheduler, the block tables and the requests, which deal in ids and numbers
// only. Below it a backend does all it likes: the CPU runs plain loops; the CUDA runner captures
// graphs and samples on the device behind the same calls.
//
// Contract for every backend: the ids of a chunk depend on its sequence's tokens, on how many of
// them are its prompt, and on its sampling parameters alone; not on the other chunks, on where its
// tokens were cut into chunks, or on which blocks it was given.
//
// Launched steps and copies take effect in the order of the calls, whenever they are really made:
// a step reads what the steps and copies before it wrote, and never what those behind it write. So
// whoever is above may give blocks to others as soon as the last step that used them is launched.
//
// Not thread-safe.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "engine/kv/host_blocks.h"
#include "engine/model/config.h"
#include "engine/model/observer.h"
#include "engine/sampling/sampling_params.h"

namespace assay::engine {

// A run of consecutive tokens of one sequence whose predecessors are in the cache.
struct BatchChunk {
  std::span<const int32_t> tokens;
  // From 0 on: the chunk has one token, the id that the step launched before draws at this place
  // (Collect's order). What `tokens` holds is not read.
  int previous_draw = -1;
  int64_t first_position = 0;
  std::span<const int32_t> block_table;  // covers first_position + tokens.size() tokens
  // Tokens of the sequence that were given rather than generated. A backend may compute the two in
  // different ways, and then does so also when it computes generated tokens again.
  int64_t prompt_len = std::numeric_limits<int64_t>::max();
  bool samples = false;  // draw the token that follows the last
  SamplingParams sampling;
  uint64_t output_position = 0;  // of the drawn token

  int64_t num_prompt_tokens() const {
    const int64_t end = first_position + static_cast<int64_t>(tokens.size());
    return std::max<int64_t>(std::min(end, prompt_len) - first_position, 0);
  }
};

// Where the time of all collected steps went; zeros where a backend does not know (a GPU runs them
// as one).
struct RunnerTimes {
  absl::Duration matmul;
  absl::Duration attention;
  absl::Duration sampling;
  absl::Duration device;  // GPUs: of all steps, by the device's clock
  // Weights and cache that the steps read, each once a pass: what they cost at least.
  double bytes_read = 0;
  double cache_bytes_read = 0;  // of them the cache
  int64_t tokens = 0;           // that went through the model
  int64_t prompt_tokens = 0;    // of them, prompts'
};

class ModelRunner {
 public:
  virtual ~ModelRunner() = default;

  virtual const ModelConfig& config() const = 0;
  virtual int64_t num_blocks() const = 0;    // of the KV cache
  virtual int block_size() const = 0;        // tokens of a block
  virtual int64_t memory_bytes() const = 0;  // weights and cache
  // Of host memory, for copies of blocks. A backend may get more in the course of time.
  virtual int64_t num_host_blocks() const = 0;

  // Steps that may be launched and not collected.
  static constexpr int kMaxInFlight = 2;

  // Begins a step. What `batch` points to is not needed when this returns. INTERNAL, here and
  // below: the device is lost.
  virtual absl::Status Launch(std::span<const BatchChunk> batch) = 0;

  // Waits for the oldest step in flight; returns the drawn ids in the order of the chunks that
  // sample. The span is valid until the next call.
  virtual absl::StatusOr<std::span<const int32_t>> Collect() = 0;

  // Both, with nothing in flight.
  absl::StatusOr<std::span<const int32_t>> Step(std::span<const BatchChunk> batch) {
    const absl::Status launched = Launch(batch);
    if (!launched.ok()) return launched;
    return Collect();
  }

  // Copies blocks, bit for bit, between the steps launched before and those launched after.
  virtual absl::Status CopyToHost(std::span<const BlockCopy> copies) = 0;
  virtual absl::Status CopyFromHost(std::span<const BlockCopy> copies) = 0;

  // Teacher forcing outside the cache, with nothing in flight: logits [num_tokens, vocab_size].
  // `observer` may be null.
  virtual absl::StatusOr<std::vector<float>> Forward(std::span<const int32_t> ids,
                                                     ForwardObserver* observer) = 0;

  virtual const RunnerTimes& times() const = 0;
};

}  // namespace assay::engine
