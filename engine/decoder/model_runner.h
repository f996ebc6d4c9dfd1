// The seam between the engine and a backend: a loaded model and its KV cache, advanced step by
// step.
//
// Above it stand the scheduler, the block tables and the requests, which deal in ids and numbers
// only. Below it a backend does all it likes: the CPU runs plain loops; the CUDA runner captures
// graphs and samples on the device behind the same calls.
//
// Contract for every backend: the ids of a chunk depend on its sequence's tokens, on how many of
// them are its prompt, and on its sampling parameters alone; not on the other chunks, on where its
// tokens were cut into chunks, or on which blocks it was given. Keys and values of a chunk are in
// its blocks when Step returns.
//
// Not thread-safe.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "engine/model/config.h"
#include "engine/model/observer.h"
#include "engine/sampling/sampling_params.h"

namespace assay::engine {

// A run of consecutive tokens of one sequence whose predecessors are in the cache.
struct BatchChunk {
  std::span<const int32_t> tokens;
  int64_t first_position = 0;
  std::span<const int32_t> block_table;  // covers first_position + tokens.size() tokens
  // Tokens of the sequence that were given rather than generated. A backend may compute the two in
  // different ways, and then does so also when it computes generated tokens again.
  int64_t prompt_len = std::numeric_limits<int64_t>::max();
  bool samples = false;  // draw the token that follows the last
  SamplingParams sampling;
  uint64_t output_position = 0;  // of the drawn token
};

// Where the time of all steps went; zeros where a backend does not know (a GPU runs them as one).
struct RunnerTimes {
  absl::Duration matmul;
  absl::Duration attention;
  absl::Duration sampling;
  absl::Duration device;  // GPUs: of all steps, by the device's clock
};

class ModelRunner {
 public:
  virtual ~ModelRunner() = default;

  virtual const ModelConfig& config() const = 0;
  virtual int64_t num_blocks() const = 0;    // of the KV cache
  virtual int block_size() const = 0;        // tokens of a block
  virtual int64_t memory_bytes() const = 0;  // weights and cache

  // Computes all chunks; returns the drawn ids in the order of the chunks that sample. The span is
  // valid until the next call. INTERNAL: the device is lost.
  virtual absl::StatusOr<std::span<const int32_t>> Step(std::span<const BatchChunk> batch) = 0;

  // Teacher forcing outside the cache: logits [num_tokens, vocab_size]. `observer` may be null.
  virtual absl::StatusOr<std::vector<float>> Forward(std::span<const int32_t> ids,
                                                     ForwardObserver* observer) = 0;

  virtual const RunnerTimes& times() const = 0;
};

}  // namespace assay::engine
