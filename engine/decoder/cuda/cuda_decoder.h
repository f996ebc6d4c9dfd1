// The decoder's forward pass on one GPU: rows of tokens in, sampled ids or logits out.
//
// The arithmetic is CpuDecoder's with activations rounded to bf16: everything that is stored is
// bf16 (norms, projections, rotated queries and keys, attention's output, SwiGLU's product, the
// residual stream), everything that is summed is float32, logits are float32.
//
// In a gang (engine/parallel) the decoder of each rank has its heads and its part of the MLP. What
// o and down compute is then a part of a sum, written into a window of the communicator and summed
// by the norm that follows; the ranks' logits are gathered, so that every rank draws the same ids.
//
// A step is a list of launches on one stream that neither allocates nor synchronizes, so it can be
// captured in a graph. A row's result does not depend on the other rows (linear.h, attention.h).
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <cuda_bf16.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/decoder/cuda/cuda_model.h"
#include "engine/kernels/cuda/attention/attention.h"
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/kv_pages.h"
#include "engine/kernels/cuda/linear.h"
#include "engine/kernels/cuda/rms_norm.h"
#include "engine/kernels/cuda/sample.h"
#include "engine/parallel/communicator.h"

namespace assay::engine::cuda {

class CudaDecoder {
 public:
  struct Limits {
    int max_rows = 0;         // of a step; at least max_sampled
    int max_decode_rows = 0;  // of them with a context of their own
    int max_sampled = 0;      // rows of logits
    int64_t max_model_len = 0;
  };

  // Of activations and of workspace, for the memory plan. A gang has windows besides.
  static int64_t ActivationBytes(const ModelConfig& config, const Limits& limits, bool in_gang);
  static int64_t WorkspaceBytes(const ModelConfig& config, const Limits& limits);
  // Of the communicator that a rank's decoder is given.
  static std::vector<int64_t> WindowBytes(const ShardPlan& shard, const Limits& limits);

  // Chooses the products' kernels (gemm.h), which takes memory that is given back. `model` and
  // `communicator` (null: one GPU has the whole model) outlive the decoder. UNIMPLEMENTED for a
  // hidden size that a gang's norms do not take.
  static absl::StatusOr<std::unique_ptr<CudaDecoder>> Make(const CudaModel* model,
                                                           const Limits& limits,
                                                           Communicator* communicator,
                                                           cudaStream_t stream);

  // All pointers are device memory. The first num_decode_rows rows are single tokens behind their
  // contexts; the others belong to runs of a prompt, which the tiles cover.
  struct Step {
    const int32_t* ids = nullptr;    // [rows]
    const int32_t* drawn = nullptr;  // what an id of -1 - i stands for; null: no such ids
    StepRows rows;
    int num_decode_rows = 0;
    const PrefillChunk* tiles = nullptr;
    int num_tiles = 0;
    KvCache cache;
  };
  absl::Status Run(const Step& step, cudaStream_t stream);

  // logits() of some rows of the last Run; null: of the first num_rows.
  absl::Status ComputeLogits(const int32_t* row_indices, int num_rows, cudaStream_t stream);
  // ids [num_rows] drawn from the logits.
  absl::Status SampleIds(const RowSampling* params, int32_t* ids, int num_rows,
                         cudaStream_t stream);

  // A layer's part of Run that fills the cache: `projections` [rows, q + 2 kv] become keys and
  // values, and rotated queries in their place.
  absl::Status WriteCache(const Step& step, int layer_index, __nv_bfloat16* projections,
                          cudaStream_t stream) const;

  const float* logits() const { return logits_.data(); }  // [max_sampled, vocab]
  const Limits& limits() const { return limits_; }
  // What computes the linears, a line each, for the log and the benchmark.
  std::string DescribeGemms() const;

 private:
  // What is shared among the ranks. o and down take turns, as communicator.h wants it.
  enum Window { kAttentionWindow, kMlpWindow, kLogitsWindow };

  CudaDecoder(const CudaModel* model, const Limits& limits, Communicator* communicator)
      : model_(*model), limits_(limits), communicator_(communicator) {}

  absl::Status Allocate();
  absl::Status MakeLinears(cudaStream_t stream);
  absl::Status RunAttention(int layer_index, const Step& step, cudaStream_t stream);
  absl::Status RunMlp(int layer_index, const Step& step, cudaStream_t stream);
  // Where o or down writes what is to be added to the residual stream.
  __nv_bfloat16* UpdateOf(Window window) const;
  // The norm of args.hidden + the update, of which the ranks' parts are summed first.
  absl::Status AddAndNormalize(Window window, RmsNormArgs args, cudaStream_t stream);
  RmsNormArgs NormArgs(const float* weight, int num_rows) const;

  const CudaModel& model_;
  const Limits limits_;
  Communicator* const communicator_;
  int num_rows_ = 0;                  // of the last Run
  bool has_unshared_update_ = false;  // it ended with one that no logits have been made of
  CublasLt lt_;
  std::optional<Linear> qkv_, o_, gate_up_, down_, lm_head_;

  DeviceBuffer<__nv_bfloat16> hidden_;        // [rows, hidden]: the residual stream
  DeviceBuffer<__nv_bfloat16> update_;        // [rows, hidden]: what is to be added; not in a gang
  DeviceBuffer<__nv_bfloat16> normed_;        // [rows, hidden]
  DeviceBuffer<__nv_bfloat16> projected_;     // [rows, q + 2 kv]
  DeviceBuffer<__nv_bfloat16> attended_;      // [rows, q]
  DeviceBuffer<__nv_bfloat16> gate_up_rows_;  // [rows, 2 intermediate]
  DeviceBuffer<__nv_bfloat16> activated_;     // [rows, intermediate]
  DeviceBuffer<float> logits_;
  DeviceBuffer<float> cosines_;  // [max_model_len, head_dim / 2]
  DeviceBuffer<float> sines_;
  std::optional<DecodeWorkspace> decode_workspace_;
};

}  // namespace assay::engine::cuda
