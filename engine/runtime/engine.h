// The inference engine's only door: token ids in, token ids and timings out.
//
// The engine owns one loaded model (plain, or an artifact with a quantization description), a paged
// KV cache and a continuous-batching scheduler. Step() advances every running sequence by one token
// (or a chunk of its prompt). A sequence's tokens depend on its own request alone, never on what
// else is in the batch, on preemption, or on the number of threads (ARCHITECTURE.md):
// reductions have a fixed order and random draws are Philox(seed, position).
//
// Not thread-safe: one thread submits and steps.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engine/model/config.h"
#include "engine/model/observer.h"
#include "engine/scheduler/request.h"

namespace assay::engine {

// base/numerics_version.h, of the backend that `device` names (EngineOptions).
std::string NumericsVersion(const std::string& device);

// What a GPU, of a gang the first, calls itself: "NVIDIA H100 80GB HBM3"; `device` where there is
// none.
std::string DeviceName(const std::string& device);

struct EngineOptions {
  // "cpu"; a GPU: "cuda" (the first), "cuda:1"; a tensor-parallel gang in the order of its ranks:
  // "cuda:0,1". A GPU that is named twice is shared by two ranks, which is for tests.
  std::string device = "cpu";
  int num_threads = 1;         // cpu
  int max_num_seqs = 64;       // lanes
  int64_t max_model_len = 0;   // 0 takes the model's max_position_embeddings
  int64_t kv_cache_bytes = 0;  // 0: room for max_num_seqs of max_model_len, capped
  // cuda: the longest sequence whose Forward has memory of its own set aside; longer ones get what
  // happens to be free.
  int64_t max_forward_len = 0;
  int block_size = 16;    // tokens of a KV block; cuda: always 64
  int prefill_chunk = 0;  // most prompt tokens of one step; 0: 256 on cpu, 2048 on cuda
  // Host memory where preempted sequences keep their keys and values; those that find no room are
  // computed again. -1: none on cpu, whose cache is host memory itself; on cuda as much as the
  // cache, but at most a quarter of the machine's memory, and none while less than that is free.
  int64_t swap_bytes = -1;
  // Steps that are launched before the one before them is known: 0 or 1. -1: 1 on cuda, so that the
  // device need not wait for the host, and 0 on cpu.
  int look_ahead = -1;
  // How much longer a step takes that has prompts, as a share of one without: newcomers are
  // gathered accordingly (engine/scheduler). -1: 0.1 on cuda, 0 on cpu.
  double prompt_step_cost = -1;
  bool round_activations_to_bf16 = false;  // cpu: as cuda stores them
  bool random_weights = false;  // cuda: model_dir holds config.json alone; for measurements
  const Clock* clock = RealClock::Get();
};

struct EngineStats {
  int64_t tokens_generated = 0;
  int64_t prompt_tokens = 0;
  int num_running = 0;
  int num_waiting = 0;
  int64_t kv_blocks_total = 0;
  int64_t kv_blocks_used = 0;
  int64_t memory_bytes = 0;  // weights and cache
  int64_t num_preemptions = 0;
  int64_t num_swaps = 0;  // of them, those that kept what was computed
  // Where Step()'s time went.
  absl::Duration matmul_time;
  absl::Duration attention_time;
  absl::Duration sampling_time;
  absl::Duration total_time;
  absl::Duration device_time;  // GPUs, by their clock
  // Of the steps whose results are known:
  double bytes_read = 0;               // weights and cache, at least
  double cache_bytes_read = 0;         // of them the cache
  int64_t tokens_computed = 0;         // prompts', answers', and those that were computed again
  int64_t prompt_tokens_computed = 0;  // of them, prompts'
};

class Engine {
 public:
  // Loads a model or artifact folder onto a backend. INVALID_ARGUMENT for what does not fit
  // together (naming tensor, shape, expected shape), RESOURCE_EXHAUSTED when the cache would not
  // hold one sequence of max_model_len; for a GPU also NOT_FOUND without it, FAILED_PRECONDITION
  // in a build without CUDA, and UNIMPLEMENTED for a description that only the CPU runs.
  static absl::StatusOr<std::unique_ptr<Engine>> Load(const std::string& model_dir,
                                                      const EngineOptions& options);

  virtual ~Engine() = default;

  virtual const ModelConfig& config() const = 0;
  virtual int64_t max_model_len() const = 0;

  // Queues a request. One that can never run (empty or over-long prompt, an id beyond the
  // vocabulary) comes back from the next Step as kRejected.
  virtual void Submit(GenerationRequest request) = 0;

  // Drops a request wherever it is. False when the engine does not have it.
  virtual bool Cancel(int64_t id) = 0;

  virtual bool idle() const = 0;

  // Launches a step, and waits for the one before it (with look_ahead 0: for itself); returns what
  // finished. Called without a pause while not idle(), it keeps the device busy. INTERNAL is fatal:
  // the process ends and its units are run again elsewhere.
  virtual absl::StatusOr<std::vector<GenerationResult>> Step() = 0;

  virtual EngineStats stats() const = 0;

  // Tokens generated so far by each running request: {id, count}.
  virtual std::vector<std::pair<int64_t, int64_t>> progress() const = 0;

  // The ids that a running request has yielded so far, for streaming; empty when it does not run.
  virtual std::vector<int32_t> OutputIds(int64_t id) const = 0;

  // Teacher forcing: logits [num_tokens, vocab_size] of a whole sequence in one pass. The observer
  // may be null. Uses none of the cache's running sequences. RESOURCE_EXHAUSTED: see
  // EngineOptions::max_forward_len.
  virtual absl::StatusOr<std::vector<float>> Forward(std::span<const int32_t> ids,
                                                     ForwardObserver* observer) = 0;
};

}  // namespace assay::engine
