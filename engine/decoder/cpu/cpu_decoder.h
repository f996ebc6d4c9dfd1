// The decoder's forward pass on the CPU: rows of tokens in, logits out.
//
//   h = embedding[token]
//   per layer:  h += o(attention(rope(qkv(norm(h)))));  h += down(silu(gate(n)) * up(n)), n =
//   norm(h) logits = lm_head(norm(h))
//
// Float32 throughout; with round_to_bf16 every activation that a BF16 engine would store is rounded
// (norms, projections, rotated queries and keys, attention's output, SwiGLU's product, the residual
// stream), logits excepted. Everything is done row by row in an order that does not depend on the
// other rows.
//
// Keeps its activations between calls. Not thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/decoder/cpu/cpu_model.h"
#include "engine/decoder/cpu/lap_timer.h"
#include "engine/decoder/model_runner.h"
#include "engine/decoder/rope_table.h"
#include "engine/kernels/cpu/aligned_buffer.h"
#include "engine/kernels/cpu/attention.h"
#include "engine/kernels/cpu/paged_kv.h"
#include "engine/kernels/cpu/thread_pool.h"
#include "engine/model/observer.h"

namespace assay::engine {

class CpuDecoder {
 public:
  // All outlive the decoder. The timer's laps are added to *times.
  CpuDecoder(const CpuModel* model, bool round_to_bf16, cpu::ThreadPool* pool, LapTimer* timer,
             RunnerTimes* times);

  // Rows of several sequences, one below the other.
  struct Rows {
    std::vector<int32_t> tokens;
    std::vector<cpu::AttentionChunk> chunks;  // in row order, covering all rows
    int size() const { return static_cast<int>(tokens.size()); }
  };

  // Runs all layers; keys and values of the rows go into `cache`, which `attention` reads.
  void Run(const Rows& rows, cpu::PagedKv* cache, cpu::Attention* attention,
           ForwardObserver* observer);

  // logits [row_indices.size(), vocab] of rows of the last Run.
  void ComputeLogits(std::span<const int> row_indices, float* logits);

 private:
  // Where a row's token stands.
  struct Slot {
    int64_t position = 0;
    int32_t block = 0;
    int offset = 0;  // in the block
  };

  void Embed(const Rows& rows, const cpu::KvShape& shape);
  void RunAttention(int layer_index, const Rows& rows, cpu::PagedKv* cache,
                    cpu::Attention* attention, ForwardObserver* observer);
  void RunMlp(int layer_index, int num_rows, ForwardObserver* observer);
  // Norms, rotates and rounds the queries and keys of a row, and writes its keys and values.
  void PrepareRow(int layer_index, int row, cpu::PagedKv* cache);
  void PrepareKeys(const CpuLayer& layer, const Slot& slot, float* keys) const;
  void Normalize(const std::vector<float>& weight, int num_rows);
  void AddToResidual(int num_rows);
  void Observe(const LinearGroup& group, const float* input, int num_rows,
               ForwardObserver* observer) const;
  void ObserveKeys(int layer_index, int num_rows, ForwardObserver* observer) const;
  void RoundRows(float* x, int64_t size) const;

  const CpuModel& model_;
  const ModelConfig& config_;
  const bool round_to_bf16_;
  cpu::ThreadPool* const pool_;
  LapTimer* const timer_;
  RunnerTimes* const times_;
  RopeTable rope_;

  std::vector<Slot> slots_;       // by row
  cpu::AlignedBuffer hidden_;     // [rows, hidden]: the residual stream
  cpu::AlignedBuffer normed_;     // [rows, hidden]
  cpu::AlignedBuffer projected_;  // [rows, q + 2 kv]: queries, keys, values
  cpu::AlignedBuffer attended_;   // [rows, q]
  cpu::AlignedBuffer gate_;       // [rows, intermediate]
  cpu::AlignedBuffer up_;         // [rows, intermediate]
  cpu::AlignedBuffer update_;     // [rows, hidden]
  cpu::AlignedBuffer scratch_;    // inputs after transform and rounding
};

}  // namespace assay::engine
