#include "engine/decoder/cuda/cuda_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include "base/status.h"
#include "engine/decoder/cuda/weight_source.h"
#include "engine/decoder/cuda/weight_upload.h"
#include "engine/decoder/model_check.h"
#include "engine/model/linears.h"
#include "engine/quant/cache_quantizer.h"
#include "engine/weights/checkpoint.h"

namespace assay::engine::cuda {
namespace {

constexpr int64_t kAlignment = 256;  // of every tensor in device memory
constexpr int kLinearsPerLayer = 7;  // q, k, v, o, gate, up, down

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Lays a model's tensors out, one after the other, and has a source fill them.
class ModelBuilder {
 public:
  // A null base adds up sizes only.
  ModelBuilder(const CudaModelPlan& plan, uint8_t* base, WeightSource* source)
      : plan_(plan), base_(base), source_(source) {}

  int64_t size() const { return size_; }
  int64_t linear_bytes() const { return linear_bytes_; }

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
    if (largest_packed_ > 0) {
      model->unpacked = static_cast<__nv_bfloat16*>(Take(largest_packed_ * 2));
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

  // Bits of a code when all these linears can be one packed weight, else 0.
  int PackedBitWidth(std::span<const LinearInfo> infos) const {
    int bit_width = 0;
    for (const LinearInfo& info : infos) {
      const auto found = plan_.description.linears.find(info.name);
      if (found == plan_.description.linears.end()) return 0;
      const LinearSpec& spec = found->second;
      const MatrixSlice slice = plan_.shard.SliceOf(info);
      if (spec.code_type != CodeType::kUniform || !IsPackedBitWidth(spec.bit_width) ||
          spec.with_permutation || (bit_width != 0 && spec.bit_width != bit_width) ||
          PackedGroupWidth(spec, info.in_features) % kPackedTileDepth != 0 ||
          slice.columns.begin % kPackedTileDepth != 0 || slice.columns.size() % 8 != 0 ||
          (infos.size() > 1 && slice.rows.size() % kPackedTileFeatures != 0)) {
        return 0;
      }
      bit_width = spec.bit_width;
    }
    return bit_width;
  }

  // Linears that read one input, one below the other without a gap.
  absl::Status AddLinears(std::span<const LinearInfo> infos, LinearWeight* weight) {
    int64_t features = 0;
    for (const LinearInfo& info : infos) features += plan_.shard.OutputsOf(info).size();
    const int64_t columns = plan_.shard.SliceOf(infos[0]).columns.size();
    const int bit_width = PackedBitWidth(infos);
    if (bit_width != 0) {
      largest_packed_ = std::max(largest_packed_, features * columns);
      const int64_t bytes = PackedWeightBytes(bit_width, features, columns);
      linear_bytes_ += bytes;
      auto* tiles = static_cast<uint8_t*>(Take(bytes));
      weight->packed = {.bit_width = bit_width, .tiles = tiles};
      if (source_ == nullptr) return absl::OkStatus();
      int64_t first_feature = 0;
      for (const LinearInfo& info : infos) {
        const MatrixSlice slice = plan_.shard.SliceOf(info);
        ASSAY_RETURN_IF_ERROR(source_->Packed(info, slice, first_feature, tiles));
        first_feature += slice.rows.size();
      }
      return absl::OkStatus();
    }
    linear_bytes_ += features * columns * 2;
    auto* place = static_cast<uint8_t*>(Take(features * columns * 2));
    weight->bf16 = reinterpret_cast<const __nv_bfloat16*>(place);
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
  WeightSource* const source_;
  int64_t size_ = 0;
  int64_t linear_bytes_ = 0;
  int64_t largest_packed_ = 0;  // elements of a packed weight
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

absl::Status AddUpSizes(CudaModelPlan* plan) {
  CudaModel sizes;
  ModelBuilder builder(*plan, nullptr, nullptr);
  ASSAY_RETURN_IF_ERROR(builder.Build(&sizes));
  plan->weight_bytes = builder.size();
  plan->linear_bytes = builder.linear_bytes();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CudaModelPlan> PlanCudaModel(const std::string& model_dir,
                                            const std::optional<RandomWeights>& random_weights,
                                            int rank, int size) {
  CudaModelPlan plan;
  plan.model_dir = model_dir;
  plan.random_weights = random_weights.has_value();
  ASSAY_ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(model_dir));
  ASSAY_ASSIGN_OR_RETURN(plan.shard, PlanShard(config, rank, size));
  ASSAY_ASSIGN_OR_RETURN(plan.description, LoadDescription(model_dir));
  if (random_weights && random_weights->bit_width != 16) {
    for (const LinearInfo& info : QuantizableLinears(config)) {
      plan.description.linears[info.name] = {.code_type = CodeType::kUniform,
                                             .bit_width = random_weights->bit_width,
                                             .symmetric = false,
                                             .group_size = kPackedTileDepth};
    }
  }
  ASSAY_RETURN_IF_ERROR(CheckDescription(config, plan.description));
  ASSAY_RETURN_IF_ERROR(CheckFits(plan.description, config));
  ASSAY_RETURN_IF_ERROR(CheckRunsOnCuda(plan.description));
  ASSAY_RETURN_IF_ERROR(
      MakeKvPageLayout(plan.description.k_cache, plan.description.v_cache, config.head_dim)
          .status());
  ASSAY_RETURN_IF_ERROR(AddUpSizes(&plan));
  return plan;
}

absl::Status CutLayers(int num_layers, CudaModelPlan* plan) {
  plan->shard.whole.num_layers = plan->shard.local.num_layers = num_layers;
  return AddUpSizes(plan);
}

absl::StatusOr<CudaModel> LoadCudaModel(const CudaModelPlan& plan, cudaStream_t stream) {
  CudaModel model;
  ASSAY_ASSIGN_OR_RETURN(model.memory, DeviceBuffer<uint8_t>::Allocate(plan.weight_bytes));
  ASSAY_RETURN_IF_CUDA_ERROR(
      cudaMemsetAsync(model.memory.data(), 0, static_cast<size_t>(plan.weight_bytes), stream));
  if (plan.random_weights) {
    const auto source = MakeRandomSource(&plan, stream);
    ASSAY_RETURN_IF_ERROR(ModelBuilder(plan, model.memory.data(), source.get()).Build(&model));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
    return model;
  }
  ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                         Checkpoint::Open(plan.model_dir));
  ASSAY_ASSIGN_OR_RETURN(WeightUpload upload, WeightUpload::Make(stream));
  const auto source = MakeCheckpointSource(checkpoint.get(), &plan, &upload, stream);
  ASSAY_RETURN_IF_ERROR(ModelBuilder(plan, model.memory.data(), source.get()).Build(&model));
  ASSAY_RETURN_IF_ERROR(upload.Finish());
  return model;
}

}  // namespace assay::engine::cuda
