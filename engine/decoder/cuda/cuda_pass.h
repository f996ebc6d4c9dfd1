// What one launch of the CUDA decoder computes: a step, or the part of one that the limits of rows
// and sequences allow. Numbers and spans only, the same for every GPU that works on it.
//
// Rows of generated tokens come first, then those of prompts (cuda_decoder.h: Step).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/decoder/model_runner.h"
#include "engine/kernels/cuda/attention/attention.h"

namespace assay::engine::cuda {

// The number of rows that a decode step of `num_rows` runs as when it is launched as a graph, its
// last ones idle; 0 when there is no graph of so many.
int GraphRowsFor(int num_rows);
// The next smaller number of rows that has a graph; 0: none.
int GraphRowsBelow(int graph_rows);
inline constexpr int kMaxGraphRows = 256;

struct CudaPass {
  struct Limits {
    int max_rows = 0;
    int max_decode_rows = 0;
    int max_sequences = 0;
  };
  struct Row {
    int32_t id = 0;  // -1 - i: the i-th id that the pass before draws
    int32_t position = 0;
    int32_t sequence = 0;
  };
  struct Sampled {
    const BatchChunk* chunk = nullptr;
    bool decodes = false;
    int index = 0;  // among the decode rows, or among the prompt's
  };

  std::vector<Row> decode_rows;
  std::vector<Row> prompt_rows;
  std::vector<PrefillChunk> prompt_runs;  // first_row counts from the first prompt row
  std::vector<Sampled> sampled;
  std::vector<std::span<const int32_t>> block_tables;  // by sequence

  // Adds tokens of the chunk, from *num_done on, as far as there is room. The chunk and what it
  // points to outlive the pass.
  void Add(const BatchChunk& chunk, const Limits& limits, int64_t* num_done);
  // Puts the ids that the step before drew in the place of those that stand for them.
  void SetDrawnIds(std::span<const int32_t> drawn);
  void Clear();

  int num_rows() const { return static_cast<int>(decode_rows.size() + prompt_rows.size()); }
  // The rows of the graph that computes it; 0: it is launched kernel by kernel, as prompts and
  // sequences that add several tokens are.
  int graph_rows() const;
};

}  // namespace assay::engine::cuda
