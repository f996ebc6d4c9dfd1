#include "engine/decoder/cuda/weight_source.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <utility>

#include "base/hash.h"
#include "base/status.h"
#include "engine/kernels/cuda/packed_weight.h"
#include "engine/kernels/cuda/random_fill.h"
#include "engine/quant/format/codes.h"
#include "engine/quant/packed_linear.h"

namespace assay::engine::cuda {
namespace {

// A linear's tensors on their way into tiles. One after the other on one stream, so that the memory
// serves all of them.
class PackStaging {
 public:
  // Room for these many features of the linear.
  absl::Status Reserve(int64_t features, int64_t row_bytes, int64_t num_groups) {
    ASSAY_RETURN_IF_ERROR(Grow(&codes_, features * row_bytes));
    ASSAY_RETURN_IF_ERROR(Grow(&scales_, features * num_groups));
    return Grow(&zeros_, features * num_groups);
  }
  uint8_t* codes() const { return codes_.data(); }
  float* scales() const { return scales_.data(); }
  uint8_t* zeros() const { return zeros_.data(); }

  // Packs features from `first_staged` of what is here, which holds whole rows.
  absl::Status Pack(const LinearInfo& info, const LinearSpec& spec, const MatrixSlice& slice,
                    int64_t first_staged, int64_t first_feature, uint8_t* tiles,
                    cudaStream_t stream) const {
    const auto row_bytes =
        static_cast<int64_t>(PackedBytes(static_cast<size_t>(info.in_features), spec.bit_width));
    const int64_t num_groups = NumGroups(spec, info.in_features);
    return PackWeight({.codes = codes() + first_staged * row_bytes,
                       .row_bytes = row_bytes,
                       .scales = scales() + first_staged * num_groups,
                       .zeros = spec.symmetric ? nullptr : zeros() + first_staged * num_groups,
                       .num_groups = num_groups,
                       .group_width = PackedGroupWidth(spec, info.in_features),
                       .first_column = slice.columns.begin,
                       .bit_width = spec.bit_width,
                       .num_features = slice.rows.size(),
                       .first_feature = first_feature,
                       .in_features = slice.columns.size(),
                       .tiles = tiles},
                      stream);
  }

 private:
  template <typename T>
  static absl::Status Grow(DeviceBuffer<T>* buffer, int64_t size) {
    if (buffer->size() >= size) return absl::OkStatus();
    *buffer = {};
    ASSAY_ASSIGN_OR_RETURN(*buffer, DeviceBuffer<T>::Allocate(size));
    return absl::OkStatus();
  }

  DeviceBuffer<uint8_t> codes_;
  DeviceBuffer<float> scales_;
  DeviceBuffer<uint8_t> zeros_;
};

void ToBf16(std::span<const float> values, std::byte* out) {
  auto* halves = reinterpret_cast<__nv_bfloat16*>(out);
  for (size_t i = 0; i < values.size(); ++i) halves[i] = __float2bfloat16_rn(values[i]);
}

// The elements [first, first + count) of a dense slice of a matrix with `columns` columns, run by
// run: visit(index in the matrix, index from `first`, length).
template <typename Visit>
void ForEachRun(const MatrixSlice& slice, int64_t columns, int64_t first, int64_t count,
                const Visit& visit) {
  const int64_t width = slice.columns.size();
  // Whole rows lie side by side in the matrix too.
  const int64_t run = width == columns ? slice.size() : width;
  for (int64_t done = 0; done < count;) {
    const int64_t at = first + done;
    const int64_t length = std::min(count - done, run - at % run);
    const int64_t row = slice.rows.begin + at / width;
    visit(row * columns + slice.columns.begin + at % width, done, length);
    done += length;
  }
}

class CheckpointSource final : public WeightSource {
 public:
  CheckpointSource(const Checkpoint* checkpoint, const CudaModelPlan* plan, WeightUpload* upload,
                   cudaStream_t stream)
      : checkpoint_(*checkpoint), plan_(*plan), upload_(upload), stream_(stream) {}

  absl::Status Linear(const LinearInfo& info, const MatrixSlice& slice,
                      void* destination) override {
    const auto found = plan_.description.linears.find(info.name);
    if (found == plan_.description.linears.end()) {
      return Matrix(info.name + ".weight", info.out_features, info.in_features, slice, destination);
    }
    ASSAY_ASSIGN_OR_RETURN(const std::vector<float> weight,
                           DecodeLinearWeight(checkpoint_, info.name, found->second,
                                              info.out_features, info.in_features));
    return CopyHalves(weight, info.in_features, slice, destination);
  }

  absl::Status Packed(const LinearInfo& info, const MatrixSlice& slice, int64_t first_feature,
                      uint8_t* tiles) override {
    const LinearSpec& spec = plan_.description.linears.at(info.name);
    ASSAY_ASSIGN_OR_RETURN(
        const PackedLinear packed,
        ReadPackedLinear(checkpoint_, info.name, spec, info.out_features, info.in_features));
    const int64_t features = slice.rows.size();
    const auto row_bytes = static_cast<int64_t>(packed.row_bytes);
    const int64_t num_groups = NumGroups(spec, info.in_features);
    ASSAY_RETURN_IF_ERROR(staging_.Reserve(features, row_bytes, num_groups));
    const int64_t first_grid = slice.rows.begin * num_groups;
    const int64_t num_grids = features * num_groups;
    ASSAY_RETURN_IF_ERROR(CopyBytes(packed.codes.data() + slice.rows.begin * row_bytes,
                                    features * row_bytes, staging_.codes()));
    ASSAY_RETURN_IF_ERROR(
        CopyBytes(packed.scales.data() + first_grid, num_grids * 4, staging_.scales()));
    if (!packed.zeros.empty()) {
      ASSAY_RETURN_IF_ERROR(
          CopyBytes(packed.zeros.data() + first_grid, num_grids, staging_.zeros()));
    }
    return staging_.Pack(info, spec, slice, /*first_staged=*/0, first_feature, tiles, stream_);
  }

  absl::Status Matrix(const std::string& name, int64_t rows, int64_t columns,
                      const MatrixSlice& slice, void* destination) override {
    const int64_t shape[] = {rows, columns};
    ASSAY_ASSIGN_OR_RETURN(const TensorView tensor, checkpoint_.Find(name));
    if (tensor.dtype != DType::kBF16 || !std::ranges::equal(tensor.shape, shape)) {
      ASSAY_ASSIGN_OR_RETURN(const std::vector<float> values, checkpoint_.ReadFloats(name, shape));
      return CopyHalves(values, columns, slice, destination);
    }
    return upload_->Copy(destination, slice.size() * 2,
                         [&](int64_t offset, int64_t size, std::byte* out) {
                           ForEachRun(slice, columns, offset / 2, size / 2,
                                      [&](int64_t from, int64_t to, int64_t count) {
                                        std::memcpy(out + to * 2, tensor.bytes.data() + from * 2,
                                                    static_cast<size_t>(count * 2));
                                      });
                           return absl::OkStatus();
                         });
  }

  absl::Status HalfVector(const std::string& name, int64_t size, const IndexRange& range,
                          void* destination) override {
    const int64_t shape[] = {size};
    ASSAY_ASSIGN_OR_RETURN(const std::vector<float> values, checkpoint_.ReadFloats(name, shape));
    return CopyHalves(values, size, {.rows = {0, 1}, .columns = range}, destination);
  }

  absl::Status Floats(const std::string& name, int64_t size, const IndexRange& range,
                      void* destination) override {
    const int64_t shape[] = {size};
    ASSAY_ASSIGN_OR_RETURN(std::vector<float> values, checkpoint_.ReadFloats(name, shape));
    return FloatTable({values.begin() + range.begin, values.begin() + range.end}, destination);
  }

  absl::StatusOr<CacheQuantizer::Tables> CacheTables(int layer, bool is_key) override {
    const CacheSpec& spec = is_key ? plan_.description.k_cache : plan_.description.v_cache;
    const ModelConfig& config = plan_.shard.whole;
    ASSAY_ASSIGN_OR_RETURN(const CacheQuantizer quantizer,
                           CacheQuantizer::Load(checkpoint_, layer, spec, config.num_kv_heads,
                                                config.head_dim, is_key));
    CacheQuantizer::Tables tables = quantizer.tables();
    for (std::vector<float>* table : {&tables.scales, &tables.zeros}) {
      if (table->empty()) continue;
      const IndexRange& heads = plan_.shard.kv_heads;
      *table = {table->begin() + heads.begin * config.head_dim,
                table->begin() + heads.end * config.head_dim};
    }
    return tables;
  }

  absl::Status FloatTable(const std::vector<float>& values, void* destination) override {
    return CopyBytes(values.data(), static_cast<int64_t>(values.size()) * 4, destination);
  }

 private:
  absl::Status CopyBytes(const void* from, int64_t size, void* destination) {
    return upload_->Copy(destination, size, [&](int64_t offset, int64_t count, std::byte* out) {
      std::memcpy(out, static_cast<const std::byte*>(from) + offset, static_cast<size_t>(count));
      return absl::OkStatus();
    });
  }

  absl::Status CopyHalves(const std::vector<float>& values, int64_t columns,
                          const MatrixSlice& slice, void* destination) {
    return upload_->Copy(
        destination, slice.size() * 2, [&](int64_t offset, int64_t size, std::byte* out) {
          ForEachRun(slice, columns, offset / 2, size / 2,
                     [&](int64_t from, int64_t to, int64_t count) {
                       ToBf16(std::span(values).subspan(static_cast<size_t>(from),
                                                        static_cast<size_t>(count)),
                              out + to * 2);
                     });
          return absl::OkStatus();
        });
  }

  const Checkpoint& checkpoint_;
  const CudaModelPlan& plan_;
  WeightUpload* const upload_;
  const cudaStream_t stream_;
  PackStaging staging_;
};

// Weights drawn so that activations stay in range through any number of layers.
class RandomSource final : public WeightSource {
 public:
  RandomSource(const CudaModelPlan* plan, cudaStream_t stream) : plan_(*plan), stream_(stream) {}

  absl::Status Linear(const LinearInfo& info, const MatrixSlice& slice,
                      void* destination) override {
    return FillHalves(info.name, info.in_features, slice, DeviationOf(info), destination);
  }
  // Codes all over their range, zero points in its middle.
  absl::Status Packed(const LinearInfo& info, const MatrixSlice& slice, int64_t first_feature,
                      uint8_t* tiles) override {
    const LinearSpec& spec = plan_.description.linears.at(info.name);
    const auto row_bytes =
        static_cast<int64_t>(PackedBytes(static_cast<size_t>(info.in_features), spec.bit_width));
    const int64_t num_groups = NumGroups(spec, info.in_features);
    ASSAY_RETURN_IF_ERROR(staging_.Reserve(info.out_features, row_bytes, num_groups));
    const auto num_codes = static_cast<float>(1 << spec.bit_width);
    const float scale = DeviationOf(info) * std::sqrt(12.0f) / num_codes;
    const uint64_t seed = Hash64({info.name});
    const int64_t num_grids = info.out_features * num_groups;
    ASSAY_RETURN_IF_ERROR(
        FillRandomBytes(staging_.codes(), info.out_features * row_bytes, seed, stream_));
    ASSAY_RETURN_IF_ERROR(
        FillRandom(staging_.scales(), num_grids, scale, scale / 8, seed + 1, stream_));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaMemsetAsync(staging_.zeros(), 1 << (spec.bit_width - 1),
                                               static_cast<size_t>(num_grids), stream_));
    return staging_.Pack(info, spec, slice, slice.rows.begin, first_feature, tiles, stream_);
  }
  absl::Status Matrix(const std::string& name, int64_t, int64_t columns, const MatrixSlice& slice,
                      void* destination) override {
    return FillHalves(name, columns, slice, 2.0f / std::sqrt(static_cast<float>(columns)),
                      destination);
  }
  absl::Status HalfVector(const std::string& name, int64_t size, const IndexRange& range,
                          void* destination) override {
    return FillHalves(name, size, {.rows = {0, 1}, .columns = range}, 0.1f, destination);
  }
  absl::Status Floats(const std::string& name, int64_t size, const IndexRange& range,
                      void* destination) override {
    const float mean = name.ends_with("norm.weight") ? 1.0f : 0.0f;
    ASSAY_ASSIGN_OR_RETURN(const auto whole, DeviceBuffer<float>::Allocate(size));
    ASSAY_RETURN_IF_ERROR(FillRandom(whole.data(), size, mean, 0.1f, Hash64({name}), stream_));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(destination, whole.data() + range.begin,
                                               static_cast<size_t>(range.size()) * 4,
                                               cudaMemcpyDeviceToDevice, stream_));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream_));
    return absl::OkStatus();
  }
  absl::StatusOr<CacheQuantizer::Tables> CacheTables(int, bool is_key) override {
    const CacheSpec& spec = is_key ? plan_.description.k_cache : plan_.description.v_cache;
    const auto size = static_cast<size_t>(plan_.shard.local.kv_size());
    const float levels = static_cast<float>(1 << spec.bit_width);
    CacheQuantizer::Tables tables;
    tables.clip_max = tables.clip_min = spec.clip_ratio;
    tables.scales.assign(size, 8.0f / levels);
    tables.zeros.assign(size, spec.symmetric ? 0.0f : levels / 2);
    return tables;
  }
  absl::Status FloatTable(const std::vector<float>& values, void* destination) override {
    ASSAY_RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(destination, values.data(), values.size() * 4,
                                               cudaMemcpyHostToDevice, stream_));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream_));
    return absl::OkStatus();
  }

 private:
  // A seed per tensor and a draw per element of the whole matrix: the ranks of a gang hold parts of
  // the model that one GPU would.
  absl::Status FillHalves(const std::string& name, int64_t columns, const MatrixSlice& slice,
                          float deviation, void* destination) const {
    return FillRandomSlice(static_cast<__nv_bfloat16*>(destination),
                           {.first_row = slice.rows.begin,
                            .rows = slice.rows.size(),
                            .first_column = slice.columns.begin,
                            .columns = slice.columns.size(),
                            .whole_columns = columns},
                           0, deviation, Hash64({name}), stream_);
  }

  static float DeviationOf(const LinearInfo& info) {
    return 1.0f / std::sqrt(static_cast<float>(info.in_features));
  }

  const CudaModelPlan& plan_;
  const cudaStream_t stream_;
  PackStaging staging_;
};

}  // namespace

std::unique_ptr<WeightSource> MakeCheckpointSource(const Checkpoint* checkpoint,
                                                   const CudaModelPlan* plan, WeightUpload* upload,
                                                   cudaStream_t stream) {
  return std::make_unique<CheckpointSource>(checkpoint, plan, upload, stream);
}

std::unique_ptr<WeightSource> MakeRandomSource(const CudaModelPlan* plan, cudaStream_t stream) {
  return std::make_unique<RandomSource>(plan, stream);
}

int64_t PackedGroupWidth(const LinearSpec& spec, int64_t in_features) {
  const int64_t width = GroupWidth(spec, in_features);
  if (width < in_features) return width;
  return (width + kPackedTileDepth - 1) / kPackedTileDepth * kPackedTileDepth;
}

}  // namespace assay::engine::cuda
