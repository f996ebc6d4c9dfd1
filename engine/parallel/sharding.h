// Which part of a decoder each rank of a tensor-parallel gang holds. Pure data: no devices.
//
//   q, k, v, gate, up   by output rows: a rank has its heads, and its part of the intermediate size
//   o, down             by input columns: each rank's product is a part of a sum over the ranks
//   lm_head             by rows of the vocabulary: logits are put together from all ranks
//   embedding, norms    whole on every rank: a lookup needs no exchange
//
// Where there are fewer KV heads than ranks, neighbouring ranks hold the same one. The sum over the
// ranks is taken in the order of the ranks (README.md), so a gang's results depend on its size
// alone.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>

#include "engine/model/config.h"
#include "engine/model/linears.h"

namespace assay::engine {

inline constexpr int kMaxTensorParallelSize = 8;

struct IndexRange {
  int64_t begin = 0;
  int64_t end = 0;

  int64_t size() const { return end - begin; }
  bool operator==(const IndexRange&) const = default;
};

// A part of a matrix [out_features, in_features].
struct MatrixSlice {
  IndexRange rows;
  IndexRange columns;

  int64_t size() const { return rows.size() * columns.size(); }
  bool operator==(const MatrixSlice&) const = default;
};

struct ShardPlan {
  int rank = 0;
  int size = 1;
  ModelConfig whole;
  // What the rank's decoder computes with: its heads and its part of the intermediate size; all
  // else, the hidden size and the vocabulary among it, as in `whole`.
  ModelConfig local;
  IndexRange heads;
  IndexRange kv_heads;
  IndexRange intermediate;
  IndexRange vocab;  // of lm_head
  // Rows of every rank's lm_head: a multiple of 8, so that the last ranks may have fewer of the
  // vocabulary and zeros for the rest.
  int64_t lm_head_rows = 0;

  // The rank's part of a linear of `whole`.
  MatrixSlice SliceOf(const LinearInfo& linear) const;
  // Of the linear's outputs, its bias being split like them.
  IndexRange OutputsOf(const LinearInfo& linear) const { return SliceOf(linear).rows; }
  // What is added to a sum over the ranks must be added once.
  bool adds_output_bias() const { return rank == 0; }
};

// INVALID_ARGUMENT naming the numbers and the sizes that are possible when the heads, the KV heads
// (which divide the size, or are divided by it) or the intermediate size do not divide.
absl::StatusOr<ShardPlan> PlanShard(const ModelConfig& config, int rank, int size);

}  // namespace assay::engine
