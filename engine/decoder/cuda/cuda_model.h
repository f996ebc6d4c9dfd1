// A decoder's weights on one GPU, checked against config.json and the description: all of them, or
// the part of one rank of a gang (engine/parallel/sharding.h), for which no more is read.
//
// Linears in bf16, row-major [out_features, in_features], or packed; those that read one input
// above each other (q, k, v; gate, up) so that they are one product. Norms, biases and the cache's
// tables in float32. Everything lies in one piece of device memory, whose size is known before
// anything is read. Tensors go from the mapped files through pinned buffers to the device; those
// that are not bf16 are converted on the way.
//
// Quantized weights of 8, 4 and 3 bits stay packed (packed_weight.h) where groups are whole 128s of
// input columns, or one, and columns are not permuted; others are decoded to bf16 at load. Either
// way a weight is the description's number rounded once to bf16. Descriptions that change a
// linear's input (transforms, activation quantizers) are refused: UNIMPLEMENTED, and the CPU
// backend runs them.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <cuda_bf16.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/kv_write.h"
#include "engine/kernels/cuda/linear.h"
#include "engine/model/config.h"
#include "engine/parallel/sharding.h"
#include "engine/quant/description.h"

namespace assay::engine::cuda {

struct CudaLayer {
  const float* input_norm = nullptr;           // [hidden]
  const float* post_attention_norm = nullptr;  // [hidden]
  LinearWeight qkv;                            // [q + 2 kv, hidden]
  const __nv_bfloat16* qkv_bias = nullptr;     // [q + 2 kv] or null; zeros for deferred biases
  LinearWeight o;                              // [hidden, q]
  const __nv_bfloat16* o_bias = nullptr;       // [hidden] or null; the first rank's alone
  LinearWeight gate_up;                        // [2 intermediate, hidden]
  LinearWeight down;                           // [hidden, intermediate]
  KvWriteLayer kv;  // per-head norms, the cache's tables, a bias of keys that comes after rounding
};

// In shapes, "q", "kv" and "intermediate" are the rank's.
struct CudaModel {
  ModelConfig config;  // ShardPlan::local
  CacheSpec key_spec;
  CacheSpec value_spec;
  const __nv_bfloat16* embedding = nullptr;  // [vocab, hidden]
  const __nv_bfloat16* lm_head = nullptr;    // [lm_head_rows, hidden]; in the embedding when tied
  int64_t lm_head_rows = 0;                  // the vocabulary; of a gang, ShardPlan::lm_head_rows
  const float* final_norm = nullptr;         // [hidden]
  std::vector<CudaLayer> layers;
  __nv_bfloat16* unpacked = nullptr;  // room for the largest packed linear, for linear.h
  DeviceBuffer<uint8_t> memory;       // what the pointers point into

  int64_t memory_bytes() const { return memory.bytes(); }
};

// What a model will be, read without touching a weight.
struct CudaModelPlan {
  std::string model_dir;
  ShardPlan shard;
  QuantDescription description;
  bool random_weights = false;  // model_dir holds a config.json alone; weights are drawn
  int64_t weight_bytes = 0;
  int64_t linear_bytes = 0;  // of them the linears of the layers, which a step reads once
};

// Weights to be drawn instead of read.
struct RandomWeights {
  // 8, 4 or 3: every linear in codes of these bits, a scale and a zero point for 128; 16: as the
  // folder's description says, bf16 without one.
  int bit_width = 16;
};

// Errors as LoadCpuModel and PlanShard, and UNIMPLEMENTED naming the linear for what only the CPU
// runs.
absl::StatusOr<CudaModelPlan> PlanCudaModel(const std::string& model_dir,
                                            const std::optional<RandomWeights>& random_weights,
                                            int rank, int size);

// Leaves the first layers alone, for measurements of a layer.
absl::Status CutLayers(int num_layers, CudaModelPlan* plan);

absl::StatusOr<CudaModel> LoadCudaModel(const CudaModelPlan& plan, cudaStream_t stream);

}  // namespace assay::engine::cuda
