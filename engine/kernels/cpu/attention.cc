#include "engine/kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"
#include "engine/kernels/cpu/kernel_table.h"

namespace assay::engine::cpu {
namespace {

// Rows of a prompt that one task takes: enough to share the page table, few enough to spread.
constexpr int kRowsPerTask = 32;

}  // namespace

Attention::Attention(int num_heads, const PagedKv* cache, ThreadPool* pool)
    : num_heads_(num_heads), cache_(cache), pool_(pool), scratch_(pool->num_threads()) {
  ASSAY_CHECK(num_heads % cache->shape().num_kv_heads == 0, "{} heads over {} KV heads", num_heads,
              cache->shape().num_kv_heads);
}

void Attention::Run(int layer, std::span<const AttentionChunk> chunks, const float* query,
                    int64_t query_stride, float* output, int64_t output_stride) {
  const KvShape& shape = cache_->shape();
  const int group = num_heads_ / shape.num_kv_heads;
  tasks_.clear();
  int64_t longest = 0;
  for (int c = 0; c < static_cast<int>(chunks.size()); ++c) {
    longest = std::max(longest, chunks[c].first_position + chunks[c].num_rows);
    for (int head = 0; head < shape.num_kv_heads; ++head) {
      for (int row = 0; row < chunks[c].num_rows; row += kRowsPerTask) {
        tasks_.push_back({c, head, row, std::min(row + kRowsPerTask, chunks[c].num_rows)});
      }
    }
  }
  const int64_t scores_stride = (longest + kPageTokens - 1) / kPageTokens * kPageTokens;
  for (Scratch& scratch : scratch_) {
    scratch.scores.EnsureSize(kMaxLanes * scores_stride);
    scratch.accumulators.EnsureSize(kMaxLanes * shape.value_stride());
  }

  pool_->ParallelFor(static_cast<int>(tasks_.size()), [&](int index, int worker) {
    const Task& task = tasks_[index];
    const AttentionChunk& chunk = chunks[task.chunk];
    Scratch& scratch = scratch_[worker];
    const int64_t context_len = chunk.first_position + task.end_row;
    const int64_t num_pages = (context_len + kPageTokens - 1) / kPageTokens;
    scratch.pages.clear();
    for (int64_t page = 0; page < num_pages; ++page) {
      const int64_t block = chunk.block_table[page / shape.pages_per_block()];
      scratch.pages.push_back(
          cache_->Page(layer, block, task.kv_head, page % shape.pages_per_block()));
    }

    AttendArgs args;
    args.pages = scratch.pages.data();
    args.head_dim = shape.head_dim;
    args.value_stride = shape.value_stride();
    args.scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
    args.scores = scratch.scores.data();
    args.scores_stride = scores_stride;
    args.accumulators = scratch.accumulators.data();
    // Lanes are (row, head of the group), rows slowest, so that contexts ascend.
    const int end_lane = task.end_row * group;
    for (int lane = task.begin_row * group; lane < end_lane; lane += args.num_lanes) {
      args.num_lanes = std::min(kMaxLanes, end_lane - lane);
      for (int i = 0; i < args.num_lanes; ++i) {
        const int row = (lane + i) / group;
        const int head = task.kv_head * group + (lane + i) % group;
        const int64_t matrix_row = chunk.first_row + row;
        args.query[i] = query + matrix_row * query_stride + head * shape.head_dim;
        args.output[i] = output + matrix_row * output_stride + head * shape.head_dim;
        args.context_len[i] = chunk.first_position + row + 1;
      }
      Kernels().attend(args);
    }
  });
}

}  // namespace assay::engine::cpu
