#include "engine/decoder/cuda_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include "base/hash.h"
#include "base/status.h"
#include "engine/decoder/model_check.h"
#include "engine/decoder/weight_upload.h"
#include "engine/kernels/cuda/random_fill.h"
#include "engine/model/linears.h"
#include "engine/quant/cache_quantizer.h"
#include "engine/quant/packed_linear.h"
#include "engine/weights/checkpoint.h"

namespace assay::engine::cuda {
namespace {

constexpr int64_t kAlignment = 256;  // of every tensor in device memory
constexpr int kLinearsPerLayer = 7;  // q, k, v, o, gate, up, down

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Where tensors come from: a checkpoint, a generator of random ones, or (for the plan) nowhere.
class Source {
 public:
  virtual ~Source() = default;
  // The slice of a linear's weight, decoded, into bf16, dense.
  virtual absl::Status Linear(const LinearInfo& info, const MatrixSlice& slice,
                              void* destination) = 0;
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

// Lays a model's tensors out, one after the other, and has a source fill them.
class ModelBuilder {
 public:
  // A null base adds up sizes only.
  ModelBuilder(const CudaModelPlan& plan, uint8_t* base, Source* source)
      : plan_(plan), base_(base), source_(source) {}

  int64_t size() const { return size_; }

  absl::Status Build(CudaModel* model) {
    const ShardPlan& shard = plan_.shard;
    const ModelConfig& config = shard.whole;
    model->config = shard.local;
    model->key_spec = plan_.description.k_cache;
    model->value_spec = plan_.description.v_cache;
    model->lm_head_rows = shard.lm_head_rows;
    // Tied, a rank's rows of lm_head are rows of the embedding, and zeros behind it.
    const int64_t padded_rows =
        std::max<int64_t>(config.vocab_size, shard.size * shard.lm_head_rows);
    ASSAY_RETURN_IF_ERROR(AddMatrix("model.embed_tokens.weight", {0, config.vocab_size},
                                    config.tie_word_embeddings ? padded_rows : config.vocab_size,
                                    &model->embedding));
    if (!config.tie_word_embeddings) {
      ASSAY_RETURN_IF_ERROR(
          AddMatrix("lm_head.weight", shard.vocab, shard.lm_head_rows, &model->lm_head));
    } else if (source_ != nullptr) {
      model->lm_head = model->embedding + shard.rank * shard.lm_head_rows * config.hidden_size;
    }
    ASSAY_RETURN_IF_ERROR(AddFloats("model.norm.weight", config.hidden_size, &model->final_norm));
    const std::vector<LinearInfo> linears = QuantizableLinears(config);
    model->layers.resize(static_cast<size_t>(config.num_layers));
    for (int layer = 0; layer < config.num_layers; ++layer) {
      ASSAY_RETURN_IF_ERROR(
          AddLayer(layer,
                   std::span(linears).subspan(static_cast<size_t>(layer) * kLinearsPerLayer,
                                              kLinearsPerLayer),
                   &model->layers[static_cast<size_t>(layer)]));
    }
    return absl::OkStatus();
  }

 private:
  void* Take(int64_t bytes) {
    void* place = base_ == nullptr ? nullptr : base_ + size_;
    size_ += Aligned(bytes);
    return place;
  }

  // Rows of a matrix [vocab, hidden], in the place of padded_rows.
  absl::Status AddMatrix(const std::string& name, const IndexRange& rows, int64_t padded_rows,
                         const __nv_bfloat16** pointer) {
    const ModelConfig& config = plan_.shard.whole;
    void* place = Take(padded_rows * config.hidden_size * 2);
    *pointer = static_cast<const __nv_bfloat16*>(place);
    if (source_ == nullptr) return absl::OkStatus();
    return source_->Matrix(name, config.vocab_size, config.hidden_size,
                           {.rows = rows, .columns = {0, config.hidden_size}}, place);
  }

  absl::Status AddFloats(const std::string& name, int64_t size, const float** pointer) {
    return AddFloats(name, size, {0, size}, pointer);
  }
  absl::Status AddFloats(const std::string& name, int64_t size, const IndexRange& range,
                         const float** pointer) {
    void* place = Take(range.size() * 4);
    *pointer = static_cast<const float*>(place);
    return source_ == nullptr ? absl::OkStatus() : source_->Floats(name, size, range, place);
  }

  absl::Status AddTable(const std::vector<float>& values, int64_t planned_size,
                        const float** pointer) {
    if (planned_size == 0) return absl::OkStatus();
    void* place = Take(planned_size * 4);
    *pointer = static_cast<const float*>(place);
    return source_ == nullptr ? absl::OkStatus() : source_->FloatTable(values, place);
  }

  // Linears that read one input, one below the other without a gap.
  absl::Status AddLinears(std::span<const LinearInfo> infos, const __nv_bfloat16** pointer) {
    int64_t bytes = 0;
    for (const LinearInfo& info : infos) bytes += plan_.shard.SliceOf(info).size() * 2;
    auto* place = static_cast<uint8_t*>(Take(bytes));
    *pointer = reinterpret_cast<const __nv_bfloat16*>(place);
    if (source_ == nullptr) return absl::OkStatus();
    for (const LinearInfo& info : infos) {
      const MatrixSlice slice = plan_.shard.SliceOf(info);
      ASSAY_RETURN_IF_ERROR(source_->Linear(info, slice, place));
      place += slice.size() * 2;
    }
    return absl::OkStatus();
  }

  absl::Status AddLayer(int index, std::span<const LinearInfo> linears, CudaLayer* layer) {
    const ModelConfig& config = plan_.shard.whole;
    const std::string prefix = fmt::format("model.layers.{}.", index);
    ASSAY_RETURN_IF_ERROR(
        AddFloats(prefix + "input_layernorm.weight", config.hidden_size, &layer->input_norm));
    ASSAY_RETURN_IF_ERROR(AddFloats(prefix + "post_attention_layernorm.weight", config.hidden_size,
                                    &layer->post_attention_norm));
    ASSAY_RETURN_IF_ERROR(AddLinears(linears.subspan(0, 3), &layer->qkv));
    ASSAY_RETURN_IF_ERROR(AddLinears(linears.subspan(3, 1), &layer->o));
    ASSAY_RETURN_IF_ERROR(AddLinears(linears.subspan(4, 2), &layer->gate_up));
    ASSAY_RETURN_IF_ERROR(AddLinears(linears.subspan(6, 1), &layer->down));

    KvWriteLayer& kv = layer->kv;
    kv.norm_eps = config.rms_norm_eps;
    if (linears[0].has_bias) {
      ASSAY_RETURN_IF_ERROR(AddQkvBias(linears.subspan(0, 3), layer));
    }
    if (linears[3].has_bias && plan_.shard.adds_output_bias()) {
      ASSAY_RETURN_IF_ERROR(AddHalves(linears[3].name + ".bias", Take(config.hidden_size * 2),
                                      config.hidden_size, &layer->o_bias));
    }
    if (config.qk_norm) {
      ASSAY_RETURN_IF_ERROR(
          AddFloats(prefix + "self_attn.q_norm.weight", config.head_dim, &kv.q_norm));
      ASSAY_RETURN_IF_ERROR(
          AddFloats(prefix + "self_attn.k_norm.weight", config.head_dim, &kv.k_norm));
    }
    ASSAY_RETURN_IF_ERROR(AddCache(index, /*is_key=*/true, plan_.description.k_cache, &kv.key));
    return AddCache(index, /*is_key=*/false, plan_.description.v_cache, &kv.value);
  }

  absl::Status AddHalves(const std::string& name, void* place, int64_t size,
                         const __nv_bfloat16** pointer) {
    *pointer = static_cast<const __nv_bfloat16*>(place);
    return source_ == nullptr ? absl::OkStatus()
                              : source_->HalfVector(name, size, {0, size}, place);
  }

  // The product adds the biases before it rounds, but for keys that are quantized without theirs:
  // zeros stand in its place (the memory was cleared), and it is added when they are read.
  absl::Status AddQkvBias(std::span<const LinearInfo> qkv, CudaLayer* layer) {
    const bool defers_key = plan_.description.k_cache.position == CacheSpec::Position::kBeforeBias;
    int64_t size = 0;
    for (const LinearInfo& info : qkv) size += plan_.shard.OutputsOf(info).size();
    auto* place = static_cast<uint8_t*>(Take(size * 2));
    layer->qkv_bias = reinterpret_cast<const __nv_bfloat16*>(place);
    for (const LinearInfo& info : qkv) {
      const std::string name = info.name + ".bias";
      const IndexRange outputs = plan_.shard.OutputsOf(info);
      if (defers_key && info.kind == LinearKind::kK) {
        ASSAY_RETURN_IF_ERROR(AddFloats(name, info.out_features, outputs, &layer->kv.k_bias));
      } else if (source_ != nullptr) {
        ASSAY_RETURN_IF_ERROR(source_->HalfVector(name, info.out_features, outputs, place));
      }
      if (source_ != nullptr) place += outputs.size() * 2;
    }
    return absl::OkStatus();
  }

  absl::Status AddCache(int layer, bool is_key, const CacheSpec& spec, CacheRounding* rounding) {
    rounding->spec = spec;
    CacheQuantizer::Tables tables;
    if (source_ != nullptr) {
      ASSAY_ASSIGN_OR_RETURN(tables, source_->CacheTables(layer, is_key));
    }
    rounding->clip_max = tables.clip_max;
    rounding->clip_min = tables.clip_min;
    const bool is_static = spec.code_type == CodeType::kUniform &&
                           spec.granularity == CacheSpec::Granularity::kPerChannelStatic;
    const int64_t table_size = is_static ? plan_.shard.local.kv_size() : 0;
    const int64_t matrix_size =
        spec.transform == CacheSpec::Transform::kMatrix
            ? int64_t{plan_.shard.whole.head_dim} * plan_.shard.whole.head_dim
            : 0;
    // The kernels' codes are unsigned (kv_write.h).
    if (is_static && spec.symmetric) {
      tables.zeros.assign(tables.zeros.size(), static_cast<float>(1 << (spec.bit_width - 1)));
    }
    ASSAY_RETURN_IF_ERROR(AddTable(tables.scales, table_size, &rounding->scale));
    ASSAY_RETURN_IF_ERROR(AddTable(tables.zeros, table_size, &rounding->zero));
    ASSAY_RETURN_IF_ERROR(AddTable(tables.matrix, matrix_size, &rounding->matrix));
    return AddTable(tables.query_matrix, is_key ? matrix_size : 0, &rounding->query_matrix);
  }

  const CudaModelPlan& plan_;
  uint8_t* const base_;
  Source* const source_;
  int64_t size_ = 0;
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

class CheckpointSource final : public Source {
 public:
  CheckpointSource(const Checkpoint* checkpoint, const CudaModelPlan* plan, WeightUpload* upload)
      : checkpoint_(*checkpoint), plan_(*plan), upload_(upload) {}

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
    return upload_->Copy(destination, static_cast<int64_t>(values.size()) * 4,
                         [&](int64_t offset, int64_t size, std::byte* out) {
                           std::memcpy(out, values.data() + offset / 4, static_cast<size_t>(size));
                           return absl::OkStatus();
                         });
  }

 private:
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
};

// Weights drawn so that activations stay in range through any number of layers.
class RandomSource final : public Source {
 public:
  RandomSource(const CudaModelPlan* plan, cudaStream_t stream) : plan_(*plan), stream_(stream) {}

  absl::Status Linear(const LinearInfo& info, const MatrixSlice& slice,
                      void* destination) override {
    return FillHalves(info.name, info.in_features, slice,
                      1.0f / std::sqrt(static_cast<float>(info.in_features)), destination);
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
                          float deviation, void* destination) {
    return FillRandomSlice(static_cast<__nv_bfloat16*>(destination),
                           {.first_row = slice.rows.begin,
                            .rows = slice.rows.size(),
                            .first_column = slice.columns.begin,
                            .columns = slice.columns.size(),
                            .whole_columns = columns},
                           0, deviation, Hash64({name}), stream_);
  }

  const CudaModelPlan& plan_;
  const cudaStream_t stream_;
};

absl::Status CheckRunsOnCuda(const QuantDescription& description) {
  for (const auto& [name, spec] : description.linears) {
    if (spec.input_transform.kind != TransformSpec::Kind::kNone ||
        spec.input_transform.with_diagonal || spec.input_quantizer.code_type != CodeType::kNone) {
      return Unimplemented(
          "{} has an input transform or an input quantizer, which the CUDA backend does not run; "
          "use --device cpu",
          name);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CudaModelPlan> PlanCudaModel(const std::string& model_dir, bool random_weights,
                                            int rank, int size) {
  CudaModelPlan plan;
  plan.model_dir = model_dir;
  plan.random_weights = random_weights;
  ASSAY_ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(model_dir));
  ASSAY_ASSIGN_OR_RETURN(plan.shard, PlanShard(config, rank, size));
  ASSAY_ASSIGN_OR_RETURN(plan.description, LoadDescription(model_dir));
  ASSAY_RETURN_IF_ERROR(CheckDescription(config, plan.description));
  ASSAY_RETURN_IF_ERROR(CheckFits(plan.description, config));
  ASSAY_RETURN_IF_ERROR(CheckRunsOnCuda(plan.description));
  ASSAY_RETURN_IF_ERROR(
      MakeKvPageLayout(plan.description.k_cache, plan.description.v_cache, config.head_dim)
          .status());
  CudaModel sizes;
  ModelBuilder builder(plan, nullptr, nullptr);
  ASSAY_RETURN_IF_ERROR(builder.Build(&sizes));
  plan.weight_bytes = builder.size();
  return plan;
}

absl::StatusOr<CudaModel> LoadCudaModel(const CudaModelPlan& plan, cudaStream_t stream) {
  CudaModel model;
  ASSAY_ASSIGN_OR_RETURN(model.memory, DeviceBuffer<uint8_t>::Allocate(plan.weight_bytes));
  ASSAY_RETURN_IF_CUDA_ERROR(
      cudaMemsetAsync(model.memory.data(), 0, static_cast<size_t>(plan.weight_bytes), stream));
  if (plan.random_weights) {
    RandomSource source(&plan, stream);
    ASSAY_RETURN_IF_ERROR(ModelBuilder(plan, model.memory.data(), &source).Build(&model));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
    return model;
  }
  ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                         Checkpoint::Open(plan.model_dir));
  ASSAY_ASSIGN_OR_RETURN(WeightUpload upload, WeightUpload::Make(stream));
  CheckpointSource source(checkpoint.get(), &plan, &upload);
  ASSAY_RETURN_IF_ERROR(ModelBuilder(plan, model.memory.data(), &source).Build(&model));
  ASSAY_RETURN_IF_ERROR(upload.Finish());
  return model;
}

}  // namespace assay::engine::cuda
