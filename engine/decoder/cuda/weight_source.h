// Where a model's tensors come from while they are laid out in device memory: a checkpoint, or a
// generator of random ones.
//
// Every method fills device memory at `destination`; what it fills is there once the stream has
// come so far. Slices and ranges are the rank's (engine/parallel/sharding.h), of the whole model's
// shapes, and arrive dense.
//
// Errors as LoadCudaModel. Not thread-safe.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/decoder/cuda/cuda_model.h"
#include "engine/decoder/cuda/weight_upload.h"
#include "engine/model/linears.h"
#include "engine/parallel/sharding.h"
#include "engine/quant/cache_quantizer.h"
#include "engine/weights/checkpoint.h"

namespace assay::engine::cuda {

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // The slice of a linear's weight, decoded, into bf16, dense.
  virtual absl::Status Linear(const LinearInfo& info, const MatrixSlice& slice,
                              void* destination) = 0;
  // The slice of a linear's codes and grids, packed into the features from first_feature on.
  virtual absl::Status Packed(const LinearInfo& info, const MatrixSlice& slice,
                              int64_t first_feature, uint8_t* tiles) = 0;
  virtual absl::Status Matrix(const std::string& name, int64_t rows, int64_t columns,
                              const MatrixSlice& slice, void* destination) = 0;
  // The elements `range` of a vector of `size`.
  virtual absl::Status HalfVector(const std::string& name, int64_t size, const IndexRange& range,
                                  void* destination) = 0;
  virtual absl::Status Floats(const std::string& name, int64_t size, const IndexRange& range,
                              void* destination) = 0;
  // Of the rank's KV heads.
  virtual absl::StatusOr<CacheQuantizer::Tables> CacheTables(int layer, bool is_key) = 0;
  virtual absl::Status FloatTable(const std::vector<float>& values, void* destination) = 0;
};

// What they are given outlives the source.
std::unique_ptr<WeightSource> MakeCheckpointSource(const Checkpoint* checkpoint,
                                                   const CudaModelPlan* plan, WeightUpload* upload,
                                                   cudaStream_t stream);
std::unique_ptr<WeightSource> MakeRandomSource(const CudaModelPlan* plan, cudaStream_t stream);

// In-features of a group as PackWeight wants them: a group of the whole row may end anywhere.
int64_t PackedGroupWidth(const LinearSpec& spec, int64_t in_features);

}  // namespace assay::engine::cuda
