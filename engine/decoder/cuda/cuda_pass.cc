#include "engine/decoder/cuda/cuda_pass.h"

#include <algorithm>
#include <iterator>

namespace assay::engine::cuda {
namespace {

constexpr int kGraphRows[] = {1,  2,  4,  8,   12,  16,  24,  32,  48,
                              64, 80, 96, 112, 128, 160, 192, 224, kMaxGraphRows};

}  // namespace

int GraphRowsFor(int num_rows) {
  const auto* found = std::ranges::lower_bound(kGraphRows, num_rows);
  return found == std::end(kGraphRows) ? 0 : *found;
}

int GraphRowsBelow(int graph_rows) {
  const auto* found = std::ranges::lower_bound(kGraphRows, graph_rows);
  return found == std::begin(kGraphRows) ? 0 : *std::prev(found);
}

void CudaPass::Add(const BatchChunk& chunk, const Limits& limits, int64_t* num_done) {
  const int sequence = static_cast<int>(block_tables.size());
  if (sequence == limits.max_sequences || num_rows() == limits.max_rows) return;
  const auto num_tokens = static_cast<int64_t>(chunk.tokens.size());
  block_tables.push_back(chunk.block_table);
  bool starts_run = true;
  for (; *num_done < num_tokens; ++*num_done) {
    if (num_rows() == limits.max_rows) return;
    const int64_t position = chunk.first_position + *num_done;
    const Row row = {.id = chunk.previous_draw >= 0 ? -1 - chunk.previous_draw
                                                    : chunk.tokens[static_cast<size_t>(*num_done)],
                     .position = static_cast<int32_t>(position),
                     .sequence = sequence};
    const bool decodes = position >= chunk.prompt_len;
    if (decodes) {
      if (static_cast<int>(decode_rows.size()) == limits.max_decode_rows) return;
      decode_rows.push_back(row);
    } else {
      if (starts_run) {
        prompt_runs.push_back({.first_row = static_cast<int32_t>(prompt_rows.size()),
                               .num_rows = 0,
                               .first_position = row.position,
                               .sequence = sequence});
        starts_run = false;
      }
      ++prompt_runs.back().num_rows;
      prompt_rows.push_back(row);
    }
    if (chunk.samples && *num_done + 1 == num_tokens) {
      const size_t index = decodes ? decode_rows.size() : prompt_rows.size();
      sampled.push_back(
          {.chunk = &chunk, .decodes = decodes, .index = static_cast<int>(index) - 1});
    }
  }
}

void CudaPass::SetDrawnIds(std::span<const int32_t> drawn) {
  for (Row& row : decode_rows) {
    if (row.id < 0) row.id = drawn[static_cast<size_t>(-1 - row.id)];
  }
}

void CudaPass::Clear() {
  decode_rows.clear();
  prompt_rows.clear();
  prompt_runs.clear();
  sampled.clear();
  block_tables.clear();
}

int CudaPass::graph_rows() const {
  const bool one_row_each = prompt_rows.empty() && block_tables.size() == decode_rows.size();
  return one_row_each ? GraphRowsFor(num_rows()) : 0;
}

}  // namespace assay::engine::cuda
