#include "engine/decoder/cuda/cuda_decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/status.h"
#include "engine/decoder/rope_table.h"
#include "engine/kernels/cuda/embedding.h"
#include "engine/kernels/cuda/gather_columns.h"
#include "engine/kernels/cuda/kv_pages.h"
#include "engine/kernels/cuda/sum_norm.h"
#include "engine/kernels/cuda/swiglu.h"

namespace assay::engine::cuda {
namespace {

DecodeWorkspace::Limits WorkspaceLimits(const ModelConfig& config,
                                        const CudaDecoder::Limits& limits) {
  return {.max_rows = limits.max_decode_rows,
          .max_context_len = limits.max_model_len,
          .num_heads = config.num_heads,
          .num_kv_heads = config.num_kv_heads,
          .head_dim = config.head_dim};
}

int64_t QkvSize(const ModelConfig& config) {
  return int64_t{config.q_size()} + 2 * int64_t{config.kv_size()};
}

// Attention rotates keys that are stored before RoPE by their place in a page, so that the angles
// of a whole page must be there.
int64_t NumAngles(const ModelConfig& config, const CudaDecoder::Limits& limits) {
  return std::max<int64_t>(limits.max_model_len, kKvPageTokens) * (config.head_dim / 2);
}

// The linear that is a member of each layer.
absl::StatusOr<Linear> MakeLinear(cublasLtHandle_t lt, const GemmShape& shape, int max_rows,
                                  const CudaModel& model, LinearWeight CudaLayer::*weight,
                                  cudaStream_t stream) {
  std::vector<LinearWeight> weights;
  for (const CudaLayer& layer : model.layers) weights.push_back(layer.*weight);
  return Linear::Make(lt, shape, max_rows, weights, model.unpacked, stream);
}

}  // namespace

int64_t CudaDecoder::ActivationBytes(const ModelConfig& config, const Limits& limits,
                                     bool in_gang) {
  const int64_t row = (in_gang ? 2 : 3) * int64_t{config.hidden_size} + QkvSize(config) +
                      config.q_size() + 3 * int64_t{config.intermediate_size};
  return limits.max_rows * row * 2 + int64_t{limits.max_sampled} * config.vocab_size * 4;
}

int64_t CudaDecoder::WorkspaceBytes(const ModelConfig& config, const Limits& limits) {
  return DecodeWorkspace::Bytes(WorkspaceLimits(config, limits)) +
         NumAngles(config, limits) * 2 * 4;
}

std::vector<int64_t> CudaDecoder::WindowBytes(const ShardPlan& shard, const Limits& limits) {
  const int64_t update_bytes = int64_t{limits.max_rows} * shard.whole.hidden_size * 2;
  return {update_bytes, update_bytes, limits.max_sampled * shard.lm_head_rows * 4};
}

absl::StatusOr<std::unique_ptr<CudaDecoder>> CudaDecoder::Make(const CudaModel* model,
                                                               const Limits& limits,
                                                               Communicator* communicator,
                                                               cudaStream_t stream) {
  const int hidden_size = model->config.hidden_size;
  if (communicator != nullptr && (hidden_size % 8 != 0 || hidden_size > kMaxSumNormSize)) {
    return Unimplemented("a gang's hidden size is a multiple of 8 up to {}; it is {}",
                         kMaxSumNormSize, hidden_size);
  }
  std::unique_ptr<CudaDecoder> decoder(new CudaDecoder(model, limits, communicator));
  ASSAY_RETURN_IF_ERROR(decoder->MakeLinears(stream));
  ASSAY_RETURN_IF_ERROR(decoder->Allocate());

  RopeTable rope(model->config);
  rope.EnsurePositions(std::max<int64_t>(limits.max_model_len, kKvPageTokens));
  const auto size = static_cast<size_t>(decoder->cosines_.size());
  ASSAY_RETURN_IF_ERROR(decoder->cosines_.CopyFrom(std::span(rope.cosines(0), size), stream));
  ASSAY_RETURN_IF_ERROR(decoder->sines_.CopyFrom(std::span(rope.sines(0), size), stream));
  ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
  return decoder;
}

absl::Status CudaDecoder::Allocate() {
  using Halves = DeviceBuffer<__nv_bfloat16>;
  const ModelConfig& config = model_.config;
  const int64_t rows = limits_.max_rows;
  ASSAY_ASSIGN_OR_RETURN(hidden_, Halves::Allocate(rows * config.hidden_size));
  if (communicator_ == nullptr) {
    ASSAY_ASSIGN_OR_RETURN(update_, Halves::Allocate(rows * config.hidden_size));
  }
  ASSAY_ASSIGN_OR_RETURN(normed_, Halves::Allocate(rows * config.hidden_size));
  ASSAY_ASSIGN_OR_RETURN(projected_, Halves::Allocate(rows * QkvSize(config)));
  ASSAY_ASSIGN_OR_RETURN(attended_, Halves::Allocate(rows * config.q_size()));
  ASSAY_ASSIGN_OR_RETURN(gate_up_rows_, Halves::Allocate(rows * 2 * config.intermediate_size));
  ASSAY_ASSIGN_OR_RETURN(activated_, Halves::Allocate(rows * config.intermediate_size));
  ASSAY_ASSIGN_OR_RETURN(
      logits_, DeviceBuffer<float>::Allocate(int64_t{limits_.max_sampled} * config.vocab_size));
  const int64_t angles = NumAngles(config, limits_);
  ASSAY_ASSIGN_OR_RETURN(cosines_, DeviceBuffer<float>::Allocate(angles));
  ASSAY_ASSIGN_OR_RETURN(sines_, DeviceBuffer<float>::Allocate(angles));
  ASSAY_ASSIGN_OR_RETURN(decode_workspace_,
                         DecodeWorkspace::Make(WorkspaceLimits(config, limits_)));
  // Padding rows are multiplied like others: whatever they hold must be numbers.
  return SetBytes(attended_.data(), 0, attended_.bytes());
}

absl::Status CudaDecoder::MakeLinears(cudaStream_t stream) {
  const ModelConfig& config = model_.config;
  const std::vector<CudaLayer>& layers = model_.layers;
  const int rows = limits_.max_rows;
  ASSAY_ASSIGN_OR_RETURN(lt_, MakeCublasLt());
  ASSAY_ASSIGN_OR_RETURN(qkv_, MakeLinear(lt_.get(),
                                          {.out_features = QkvSize(config),
                                           .in_features = config.hidden_size,
                                           .has_bias = layers[0].qkv_bias != nullptr},
                                          rows, model_, &CudaLayer::qkv, stream));
  ASSAY_ASSIGN_OR_RETURN(o_, MakeLinear(lt_.get(),
                                        {.out_features = config.hidden_size,
                                         .in_features = config.q_size(),
                                         .has_bias = layers[0].o_bias != nullptr},
                                        rows, model_, &CudaLayer::o, stream));
  ASSAY_ASSIGN_OR_RETURN(gate_up_, MakeLinear(lt_.get(),
                                              {.out_features = 2 * config.intermediate_size,
                                               .in_features = config.hidden_size},
                                              rows, model_, &CudaLayer::gate_up, stream));
  ASSAY_ASSIGN_OR_RETURN(down_, MakeLinear(lt_.get(),
                                           {.out_features = config.hidden_size,
                                            .in_features = config.intermediate_size},
                                           rows, model_, &CudaLayer::down, stream));
  const LinearWeight head[] = {{.bf16 = model_.lm_head, .packed = {}}};
  ASSAY_ASSIGN_OR_RETURN(lm_head_, Linear::Make(lt_.get(),
                                                {.out_features = model_.lm_head_rows,
                                                 .in_features = config.hidden_size,
                                                 .float_output = true},
                                                limits_.max_sampled, head, nullptr, stream));
  return absl::OkStatus();
}

__nv_bfloat16* CudaDecoder::UpdateOf(Window window) const {
  if (communicator_ == nullptr) return update_.data();
  return reinterpret_cast<__nv_bfloat16*>(communicator_->window(window));
}

RmsNormArgs CudaDecoder::NormArgs(const float* weight, int num_rows) const {
  return {.hidden = hidden_.data(),
          .weight = weight,
          .normed = normed_.data(),
          .num_rows = num_rows,
          .size = model_.config.hidden_size,
          .eps = model_.config.rms_norm_eps};
}

absl::Status CudaDecoder::AddAndNormalize(Window window, RmsNormArgs args, cudaStream_t stream) {
  if (communicator_ == nullptr) {
    args.update = update_.data();
    return RmsNorm(args, stream);
  }
  ASSAY_ASSIGN_OR_RETURN(
      const GangParts update,
      communicator_->Share(window, int64_t{num_rows_} * model_.config.hidden_size * 2, stream));
  return SumNorm({.hidden = args.hidden,
                  .update = update,
                  .rows = args.rows,
                  .weight = args.weight,
                  .sum = args.sum,
                  .normed = args.normed,
                  .num_rows = args.num_rows,
                  .size = args.size,
                  .eps = args.eps},
                 stream);
}

absl::Status CudaDecoder::Run(const Step& step, cudaStream_t stream) {
  if (communicator_ != nullptr && has_unshared_update_) {
    // Windows are shared in turn (communicator.h), and the step before had no logits.
    ASSAY_RETURN_IF_ERROR(AddAndNormalize(kMlpWindow, NormArgs(model_.final_norm, 1), stream));
  }
  num_rows_ = step.rows.num_rows;
  if (step.num_decode_rows > 0) {
    StepRows decode_rows = step.rows;
    decode_rows.num_rows = step.num_decode_rows;
    ASSAY_RETURN_IF_ERROR(PlanDecode(decode_rows, step.cache.layout, *decode_workspace_, stream));
  }
  // Behind the plan: what follows the embeddings finds it made (embedding.h).
  ASSAY_RETURN_IF_ERROR(GatherEmbeddings({.ids = step.ids,
                                          .drawn = step.drawn,
                                          .table = model_.embedding,
                                          .out = hidden_.data(),
                                          .num_rows = step.rows.num_rows,
                                          .hidden_size = model_.config.hidden_size,
                                          .vocab_size = model_.config.vocab_size},
                                         stream));
  for (int layer = 0; layer < model_.config.num_layers; ++layer) {
    ASSAY_RETURN_IF_ERROR(RunAttention(layer, step, stream));
    ASSAY_RETURN_IF_ERROR(RunMlp(layer, step, stream));
  }
  has_unshared_update_ = true;
  return absl::OkStatus();
}

absl::Status CudaDecoder::WriteCache(const Step& step, int layer_index, __nv_bfloat16* projections,
                                     cudaStream_t stream) const {
  const int64_t stride = QkvSize(model_.config);
  return WriteKv({.rows = step.rows,
                  .num_heads = model_.config.num_heads,
                  .cache = step.cache,
                  .layer = layer_index,
                  .weights = model_.layers[static_cast<size_t>(layer_index)].kv,
                  .rope = {.cosines = cosines_.data(), .sines = sines_.data()},
                  .qkv = projections,
                  .qkv_stride = stride,
                  .query = projections,
                  .query_stride = stride},
                 stream);
}

absl::Status CudaDecoder::RunAttention(int layer_index, const Step& step, cudaStream_t stream) {
  const ModelConfig& config = model_.config;
  const CudaLayer& layer = model_.layers[static_cast<size_t>(layer_index)];
  const int num_rows = step.rows.num_rows;
  const int64_t stride = QkvSize(config);
  RmsNormArgs norm = NormArgs(layer.input_norm, num_rows);
  if (layer_index == 0) {
    ASSAY_RETURN_IF_ERROR(RmsNorm(norm, stream));
  } else {
    // The update of the layer before is still to be added.
    norm.sum = hidden_.data();
    ASSAY_RETURN_IF_ERROR(AddAndNormalize(kMlpWindow, norm, stream));
  }
  ASSAY_RETURN_IF_ERROR(qkv_->Run(layer.qkv, normed_.data(), layer.qkv_bias, projected_.data(),
                                  step.num_decode_rows, num_rows, stream));
  AttentionArgs attention = {.rows = step.rows,
                             .num_heads = config.num_heads,
                             .cache = step.cache,
                             .layer = layer_index,
                             .key_scale = layer.kv.key.scale,
                             .key_zero = layer.kv.key.zero,
                             .key_bias = layer.kv.k_bias,
                             .rope = {.cosines = cosines_.data(), .sines = sines_.data()},
                             // A sequence's other tokens are of steps before.
                             .fetches_early = step.rows.sequences == nullptr,
                             .query = projected_.data(),
                             .query_stride = stride,
                             .output = attended_.data(),
                             .output_stride = config.q_size()};
  attention.projected = num_rows == step.num_decode_rows && DecodeWritesRows(attention, layer.kv);
  if (!attention.projected) {
    ASSAY_RETURN_IF_ERROR(WriteCache(step, layer_index, projected_.data(), stream));
  }
  if (step.num_tiles > 0) {
    ASSAY_RETURN_IF_ERROR(PrefillAttention(attention, step.tiles, step.num_tiles, stream));
  }
  if (step.num_decode_rows > 0) {
    attention.rows.num_rows = step.num_decode_rows;
    ASSAY_RETURN_IF_ERROR(DecodeAttention(attention, *decode_workspace_, stream));
  }
  return o_->Run(layer.o, attended_.data(), layer.o_bias, UpdateOf(kAttentionWindow),
                 step.num_decode_rows, num_rows, stream);
}

absl::Status CudaDecoder::RunMlp(int layer_index, const Step& step, cudaStream_t stream) {
  const int num_rows = step.rows.num_rows;
  const CudaLayer& layer = model_.layers[static_cast<size_t>(layer_index)];
  RmsNormArgs norm = NormArgs(layer.post_attention_norm, num_rows);
  norm.sum = hidden_.data();
  ASSAY_RETURN_IF_ERROR(AddAndNormalize(kAttentionWindow, norm, stream));
  ASSAY_RETURN_IF_ERROR(gate_up_->Run(layer.gate_up, normed_.data(), nullptr, gate_up_rows_.data(),
                                      step.num_decode_rows, num_rows, stream));
  ASSAY_RETURN_IF_ERROR(Swiglu({.gate_up = gate_up_rows_.data(),
                                .out = activated_.data(),
                                .num_rows = num_rows,
                                .size = model_.config.intermediate_size},
                               stream));
  return down_->Run(layer.down, activated_.data(), nullptr, UpdateOf(kMlpWindow),
                    step.num_decode_rows, num_rows, stream);
}

absl::Status CudaDecoder::ComputeLogits(const int32_t* row_indices, int num_rows,
                                        cudaStream_t stream) {
  ASSAY_CHECK(num_rows <= limits_.max_sampled, "{} rows of logits", num_rows);
  RmsNormArgs norm = NormArgs(model_.final_norm, num_rows);
  norm.rows = row_indices;
  ASSAY_RETURN_IF_ERROR(AddAndNormalize(kMlpWindow, norm, stream));
  has_unshared_update_ = false;
  float* const own = communicator_ == nullptr
                         ? logits_.data()
                         : reinterpret_cast<float*>(communicator_->window(kLogitsWindow));
  // All rows of logits count as decoding: a prompt's last row is one of few.
  ASSAY_RETURN_IF_ERROR(lm_head_->Run({.bf16 = model_.lm_head, .packed = {}}, normed_.data(),
                                      nullptr, own, num_rows, num_rows, stream));
  if (communicator_ == nullptr) return absl::OkStatus();
  ASSAY_ASSIGN_OR_RETURN(
      const GangParts gang,
      communicator_->Share(kLogitsWindow, num_rows * model_.lm_head_rows * 4, stream));
  return GatherColumns({.gang = gang,
                        .out = logits_.data(),
                        .num_rows = num_rows,
                        .part_columns = model_.lm_head_rows,
                        .columns = model_.config.vocab_size},
                       stream);
}

absl::Status CudaDecoder::SampleIds(const RowSampling* params, int32_t* ids, int num_rows,
                                    cudaStream_t stream) {
  return Sample({.logits = logits_.data(),
                 .params = params,
                 .ids = ids,
                 .num_rows = num_rows,
                 .vocab_size = model_.config.vocab_size},
                stream);
}

std::string CudaDecoder::DescribeGemms() const {
  std::string text;
  const std::pair<const char*, const Linear*> linears[] = {{"qkv", &*qkv_},
                                                           {"o", &*o_},
                                                           {"gate_up", &*gate_up_},
                                                           {"down", &*down_},
                                                           {"lm_head", &*lm_head_}};
  for (const auto& [name, linear] : linears) {
    const GemmShape& shape = linear->gemm().shape();
    text += fmt::format("{:8} {:6} x {:5}  few rows: {} bits\n", name, shape.out_features,
                        shape.in_features, linear->few_rows_agree() ? "the same" : "other");
    const double weight_bytes = 2.0 * static_cast<double>(shape.out_features * shape.in_features);
    for (const GemmChoice& choice : linear->gemm().choices()) {
      text += fmt::format(
          "{:8} {:6} x {:5}  rows {:4}  {:8.1f} us  {:5.2f} TB/s of weights  {:3.0f} TFLOP/s  {} "
          "of {} kernels agree\n",
          name, shape.out_features, shape.in_features, choice.max_rows, choice.microseconds,
          weight_bytes / choice.microseconds / 1e6,
          weight_bytes * choice.max_rows / choice.microseconds / 1e6, choice.num_equal,
          choice.num_candidates);
    }
  }
  return text;
}

}  // namespace assay::engine::cuda
