// Causal attention of a step's query rows over the paged cache.
//
// A chunk is a run of consecutive rows of one sequence: one row when decoding, many in a prompt.
// Row r of a chunk sees the keys [0, first_position + r]. A row's result depends on its query and
// those keys alone: not on the chunk it came in, on other chunks, or on threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/kernels/cpu/aligned_buffer.h"
#include "engine/kernels/cpu/paged_kv.h"
#include "engine/kernels/cpu/thread_pool.h"

namespace assay::engine::cpu {

struct AttentionChunk {
  int first_row = 0;  // in the query matrix
  int num_rows = 0;
  int64_t first_position = 0;
  std::span<const int32_t> block_table;  // covers first_position + num_rows tokens
};

// Keeps scratch memory between calls. Not thread-safe.
class Attention {
 public:
  // `cache` and `pool` outlive it. num_heads is a multiple of the cache's KV heads.
  Attention(int num_heads, const PagedKv* cache, ThreadPool* pool);

  // query, output: [rows, num_heads, head_dim]; strides in floats.
  void Run(int layer, std::span<const AttentionChunk> chunks, const float* query,
           int64_t query_stride, float* output, int64_t output_stride);

 private:
  struct Task {
    int chunk = 0;
    int kv_head = 0;
    int begin_row = 0;  // within the chunk
    int end_row = 0;
  };
  struct Scratch {
    std::vector<const float*> pages;
    AlignedBuffer scores;
    AlignedBuffer accumulators;
  };

  const int num_heads_;
  const PagedKv* const cache_;
  ThreadPool* const pool_;
  std::vector<Task> tasks_;
  std::vector<Scratch> scratch_;  // by worker
};

}  // namespace assay::engine::cpu
