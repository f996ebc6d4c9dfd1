#include "engine/decoder/cuda/attention_benchmark.h"

#include <algorithm>
#include <vector>

#include "base/status.h"
#include "engine/decoder/rope_table.h"
#include "engine/kernels/cuda/attention/attention.h"
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/kv_write.h"
#include "engine/kernels/cuda/random_fill.h"

namespace assay::engine::cuda {
namespace {

// Read between two visits of one layer: many times the second-level cache.
constexpr int64_t kBytesInTurn = int64_t{1} << 30;
constexpr int64_t kRowsPerWrite = 8192;
constexpr int kRepeats = 7;

template <typename T>
absl::StatusOr<DeviceBuffer<T>> Upload(const std::vector<T>& values, cudaStream_t stream) {
  ASSAY_ASSIGN_OR_RETURN(auto buffer, DeviceBuffer<T>::Allocate(std::ssize(values)));
  ASSAY_RETURN_IF_ERROR(buffer.CopyFrom(values, stream));
  ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
  return buffer;
}

class AttentionBenchmark {
 public:
  AttentionBenchmark(const ModelConfig& config, const QuantDescription& description, int batch_size,
                     int64_t context_len)
      : config_(config), batch_size_(batch_size), context_len_(context_len) {
    key_.spec = description.k_cache;
    value_.spec = description.v_cache;
    // A matrix would be applied before the cache: what is read is the same without it.
    for (CacheSpec* spec : {&key_.spec, &value_.spec}) {
      if (spec->transform == CacheSpec::Transform::kMatrix) {
        spec->transform = CacheSpec::Transform::kNone;
      }
    }
  }

  absl::StatusOr<AttentionTiming> Run() {
    ASSAY_ASSIGN_OR_RETURN(stream_, MakeStream());
    ASSAY_RETURN_IF_ERROR(MakeCache());
    ASSAY_RETURN_IF_ERROR(FillCache());
    const int64_t q_size = config_.q_size();
    ASSAY_ASSIGN_OR_RETURN(const auto query,
                           DeviceBuffer<__nv_bfloat16>::Allocate(batch_size_ * q_size));
    ASSAY_ASSIGN_OR_RETURN(const auto output,
                           DeviceBuffer<__nv_bfloat16>::Allocate(batch_size_ * q_size));
    ASSAY_RETURN_IF_ERROR(FillRandom(query.data(), query.size(), 0, 1, 3, stream_.get()));
    ASSAY_ASSIGN_OR_RETURN(const auto workspace,
                           DecodeWorkspace::Make({.max_rows = batch_size_,
                                                  .max_context_len = context_len_,
                                                  .num_heads = config_.num_heads,
                                                  .num_kv_heads = config_.num_kv_heads,
                                                  .head_dim = config_.head_dim}));
    const std::vector<int32_t> last(static_cast<size_t>(batch_size_),
                                    static_cast<int32_t>(context_len_ - 1));
    ASSAY_ASSIGN_OR_RETURN(const auto positions, Upload(last, stream_.get()));
    AttentionArgs args = {.rows = {.num_rows = batch_size_,
                                   .positions = positions.data(),
                                   .block_tables = tables_.data(),
                                   .block_table_stride = stride_},
                          .num_heads = config_.num_heads,
                          .cache = cache_,
                          .key_scale = key_.scale,
                          .key_zero = key_.zero,
                          .rope = rope(),
                          .query = query.data(),
                          .query_stride = q_size,
                          .output = output.data(),
                          .output_stride = q_size};
    ASSAY_RETURN_IF_ERROR(PlanDecode(args.rows, cache_.layout, workspace, stream_.get()));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream_.get()));
    args.fetches_early = true;
    std::vector<double> times;
    for (int repeat = 0; repeat <= kRepeats; ++repeat) {
      ASSAY_ASSIGN_OR_RETURN(const double microseconds, TimeLayers(&args, workspace));
      if (repeat > 0) times.push_back(microseconds);  // the first loads the kernels
    }
    std::ranges::nth_element(times, times.begin() + kRepeats / 2);
    return AttentionTiming{.microseconds = times[kRepeats / 2], .bytes = LayerBytes()};
  }

 private:
  double LayerBytes() const {
    return static_cast<double>(batch_size_) * static_cast<double>(context_len_) *
           config_.num_kv_heads * cache_.layout.page_bytes() / kKvPageTokens;
  }
  RopeTables rope() const { return {.cosines = cosines_.data(), .sines = sines_.data()}; }

  absl::Status MakeCache() {
    ASSAY_ASSIGN_OR_RETURN(cache_.layout,
                           MakeKvPageLayout(key_.spec, value_.spec, config_.head_dim));
    stride_ = static_cast<int>((context_len_ + kKvPageTokens - 1) / kKvPageTokens);
    cache_.num_kv_heads = config_.num_kv_heads;
    cache_.num_blocks = int64_t{batch_size_} * stride_;
    cache_.num_layers = static_cast<int>(
        std::clamp<int64_t>(kBytesInTurn / static_cast<int64_t>(LayerBytes()) + 1, 2, 64));
    ASSAY_ASSIGN_OR_RETURN(memory_, DeviceBuffer<uint8_t>::Allocate(cache_.bytes()));
    cache_.base = memory_.data();

    // Sequences that grew together.
    std::vector<int32_t> tables;
    for (int sequence = 0; sequence < batch_size_; ++sequence) {
      for (int page = 0; page < stride_; ++page) tables.push_back(page * batch_size_ + sequence);
    }
    ASSAY_ASSIGN_OR_RETURN(tables_, Upload(tables, stream_.get()));
    const int64_t num_positions = std::max<int64_t>(context_len_, kKvPageTokens);
    RopeTable angles(config_);
    angles.EnsurePositions(num_positions);
    const auto size = static_cast<size_t>(num_positions * angles.half());
    ASSAY_ASSIGN_OR_RETURN(
        cosines_, Upload(std::vector(angles.cosines(0), angles.cosines(0) + size), stream_.get()));
    ASSAY_ASSIGN_OR_RETURN(
        sines_, Upload(std::vector(angles.sines(0), angles.sines(0) + size), stream_.get()));
    const float levels = static_cast<float>(1 << std::min(key_.spec.bit_width, 8));
    const auto channels = static_cast<size_t>(config_.kv_size());
    ASSAY_ASSIGN_OR_RETURN(scale_, Upload(std::vector<float>(channels, 8 / levels), stream_.get()));
    ASSAY_ASSIGN_OR_RETURN(zero_, Upload(std::vector<float>(channels, levels / 2), stream_.get()));
    key_.scale = value_.scale = scale_.data();
    key_.zero = value_.zero = zero_.data();
    return absl::OkStatus();
  }

  absl::Status FillCache() {
    const int64_t width = int64_t{config_.q_size()} + 2 * int64_t{config_.kv_size()};
    ASSAY_ASSIGN_OR_RETURN(const auto qkv,
                           DeviceBuffer<__nv_bfloat16>::Allocate(kRowsPerWrite * width));
    ASSAY_RETURN_IF_ERROR(FillRandom(qkv.data(), qkv.size(), 0, 1, 5, stream_.get()));
    const int64_t num_tokens = batch_size_ * context_len_;
    for (int64_t begin = 0; begin < num_tokens; begin += kRowsPerWrite) {
      std::vector<int32_t> positions, sequences;
      for (int64_t token = begin; token < std::min(begin + kRowsPerWrite, num_tokens); ++token) {
        positions.push_back(static_cast<int32_t>(token % context_len_));
        sequences.push_back(static_cast<int32_t>(token / context_len_));
      }
      ASSAY_ASSIGN_OR_RETURN(const auto device_positions, Upload(positions, stream_.get()));
      ASSAY_ASSIGN_OR_RETURN(const auto device_sequences, Upload(sequences, stream_.get()));
      KvWriteArgs args = {.rows = {.num_rows = static_cast<int>(positions.size()),
                                   .positions = device_positions.data(),
                                   .sequences = device_sequences.data(),
                                   .block_tables = tables_.data(),
                                   .block_table_stride = stride_},
                          .num_heads = config_.num_heads,
                          .cache = cache_,
                          .weights = {.key = key_, .value = value_},
                          .rope = rope(),
                          .qkv = qkv.data(),
                          .qkv_stride = width,
                          .query = qkv.data(),
                          .query_stride = width};
      for (args.layer = 0; args.layer < cache_.num_layers; ++args.layer) {
        ASSAY_RETURN_IF_ERROR(WriteKv(args, stream_.get()));
      }
      ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream_.get()));
    }
    return absl::OkStatus();
  }

  // Of one layer, all layers having been read.
  absl::StatusOr<double> TimeLayers(AttentionArgs* args, const DecodeWorkspace& workspace) {
    ASSAY_ASSIGN_OR_RETURN(const Event start, MakeEvent());
    ASSAY_ASSIGN_OR_RETURN(const Event end, MakeEvent());
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(start.get(), stream_.get()));
    for (args->layer = 0; args->layer < cache_.num_layers; ++args->layer) {
      ASSAY_RETURN_IF_ERROR(DecodeAttention(*args, workspace, stream_.get()));
    }
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(end.get(), stream_.get()));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventSynchronize(end.get()));
    ASSAY_ASSIGN_OR_RETURN(const float milliseconds, ElapsedMs(start, end));
    return double{milliseconds} * 1000 / cache_.num_layers;
  }

  const ModelConfig& config_;
  const int batch_size_;
  const int64_t context_len_;
  int stride_ = 0;
  Stream stream_;
  CacheRounding key_;
  CacheRounding value_;
  KvCache cache_;
  DeviceBuffer<uint8_t> memory_;
  DeviceBuffer<int32_t> tables_;
  DeviceBuffer<float> cosines_, sines_, scale_, zero_;
};

}  // namespace

absl::StatusOr<AttentionTiming> TimeDecodeAttention(const ModelConfig& config,
                                                    const QuantDescription& description,
                                                    int batch_size, int64_t context_len) {
  return AttentionBenchmark(config, description, batch_size, context_len).Run();
}

}  // namespace assay::engine::cuda
