// Attention on the GPU by itself: bytes of the cache per second against what a copy reaches.
//
//   attention_bench [--formats kv16,kv8,...] [--contexts 1024,8192,32768] [--blocks grown]
//                   [--decode-only] [--json]
//
// Decode reads random caches of several layers in turn, so that nothing stays in the second-level
// cache; time is the median of several runs of many launches between two events. The share is of
// the rate of a device-to-device copy (bytes read and written) in the same process. Prefill and the
// write of keys and values follow.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/kernels/cuda/attention/attention.h"
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/kv_write.h"
#include "engine/kernels/cuda/random_fill.h"

namespace assay::engine::cuda {
namespace {

constexpr int kHeadDim = 128;
constexpr int kSamples = 7;

struct Options {
  std::vector<std::string> formats = {"kv16", "kv8", "kv4", "kv3", "static4", "static3"};
  std::vector<int> contexts = {1024, 8192, 32768};
  // How sequences got their blocks: together as they grew, one sequence after the other, or at
  // random.
  std::string blocks = "grown";
  bool json = false;
  bool decode_only = false;
};

struct Format {
  CacheSpec key;
  CacheSpec value{.position = CacheSpec::Position::kAfterProjection};
};

absl::StatusOr<Format> FormatOf(const std::string& name) {
  Format format;
  if (name == "kv16") return format;
  const bool is_static = name.starts_with("static");
  if (!is_static && !name.starts_with("kv")) return InvalidArgument("format {}: unknown", name);
  const int bits = name.back() - '0';
  format.key = {.code_type = CodeType::kUniform, .bit_width = bits};
  if (is_static) {
    format.key.granularity = CacheSpec::Granularity::kPerChannelStatic;
    format.key.position = CacheSpec::Position::kBeforeBias;
  }
  format.value.code_type = CodeType::kUniform;
  format.value.bit_width = bits;
  return format;
}

// Median milliseconds of one call of `launch(i)`, i counting up.
absl::StatusOr<double> MedianMs(cudaStream_t stream,
                                const std::function<absl::Status(int)>& launch) {
  ASSAY_ASSIGN_OR_RETURN(const Event start, MakeEvent());
  ASSAY_ASSIGN_OR_RETURN(const Event end, MakeEvent());
  const auto time = [&](int count) -> absl::StatusOr<double> {
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(start.get(), stream));
    for (int i = 0; i < count; ++i) ASSAY_RETURN_IF_ERROR(launch(i));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(end.get(), stream));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventSynchronize(end.get()));
    ASSAY_ASSIGN_OR_RETURN(const float ms, ElapsedMs(start, end));
    return double{ms} / count;
  };
  ASSAY_ASSIGN_OR_RETURN(double estimate, time(3));
  const int count = std::clamp(static_cast<int>(8 / std::max(estimate, 1e-3)), 4, 400);
  std::vector<double> samples;
  for (int i = 0; i < kSamples; ++i) {
    ASSAY_ASSIGN_OR_RETURN(const double sample, time(count));
    samples.push_back(sample);
  }
  std::ranges::sort(samples);
  return samples[kSamples / 2];
}

absl::StatusOr<double> CopyGbPerS(cudaStream_t stream) {
  constexpr int64_t kBytes = int64_t{2} << 30;
  ASSAY_ASSIGN_OR_RETURN(const auto from, DeviceBuffer<uint8_t>::Allocate(kBytes));
  ASSAY_ASSIGN_OR_RETURN(const auto to, DeviceBuffer<uint8_t>::Allocate(kBytes));
  ASSAY_RETURN_IF_ERROR(FillRandomBytes(from.data(), kBytes, 1, stream));
  ASSAY_ASSIGN_OR_RETURN(const double ms, MedianMs(stream, [&](int) {
                           return CudaStatus(cudaMemcpyAsync(to.data(), from.data(), kBytes,
                                                             cudaMemcpyDeviceToDevice, stream),
                                             "copy");
                         }));
  return 2 * kBytes / ms / 1e6;
}

// A cache of `layers` layers filled with the keys and values of random projections.
class Cache {
 public:
  static absl::StatusOr<std::unique_ptr<Cache>> Make(const Format& format,
                                                     const std::string& blocks, int num_seqs,
                                                     int context_len, int num_heads,
                                                     int num_kv_heads, cudaStream_t stream) {
    auto cache = std::make_unique<Cache>();
    ASSAY_RETURN_IF_ERROR(
        cache->Fill(format, blocks, num_seqs, context_len, num_heads, num_kv_heads, stream));
    return cache;
  }

  int num_layers() const { return cache_.num_layers; }
  const KvPageLayout& layout() const { return cache_.layout; }
  // Of one layer's decode step: codes and parameters of every cached token.
  int64_t bytes_read() const { return num_tokens_ * cache_.num_kv_heads * token_bytes_; }
  StepRows last_rows() const {
    return {.num_rows = num_seqs_,
            .positions = last_positions_.data(),
            .block_tables = tables_.data(),
            .block_table_stride = stride_};
  }
  StepRows all_rows() const {
    return {.num_rows = static_cast<int>(num_tokens_),
            .positions = positions_.data(),
            .sequences = sequences_.data(),
            .block_tables = tables_.data(),
            .block_table_stride = stride_};
  }
  AttentionArgs Attention(int layer, const StepRows& rows, const __nv_bfloat16* query,
                          __nv_bfloat16* output) const {
    const int64_t q_size = int64_t{num_heads_} * kHeadDim;
    return {.rows = rows,
            .num_heads = num_heads_,
            .cache = cache_,
            .layer = layer,
            .key_scale = scale_.data(),
            .key_zero = zero_.data(),
            .key_bias = bias_.data(),
            .rope = {cosines_.data(), sines_.data()},
            .query = query,
            .query_stride = q_size,
            .output = output,
            .output_stride = q_size};
  }
  // Writes `rows` of random projections with `num_heads` queries each.
  absl::Status Write(int layer, StepRows rows, int num_heads, cudaStream_t stream) const {
    KvWriteArgs args = {.rows = rows,
                        .num_heads = num_heads,
                        .cache = cache_,
                        .layer = layer,
                        .rope = {cosines_.data(), sines_.data()},
                        .qkv = qkv_.data(),
                        .qkv_stride = int64_t{num_heads + 2 * cache_.num_kv_heads} * kHeadDim,
                        .query = query_.data(),
                        .query_stride = int64_t{num_heads} * kHeadDim};
    args.weights.key = {.spec = format_.key, .scale = scale_.data(), .zero = zero_.data()};
    args.weights.value = {.spec = format_.value};
    return WriteKv(args, stream);
  }

 private:
  static constexpr int kRowsPerWrite = 8192;

  absl::Status Fill(const Format& format, const std::string& blocks, int num_seqs, int context_len,
                    int num_heads, int num_kv_heads, cudaStream_t stream) {
    format_ = format;
    num_seqs_ = num_seqs;
    num_heads_ = num_heads;
    num_tokens_ = int64_t{num_seqs} * context_len;
    stride_ = (context_len + kKvPageTokens - 1) / kKvPageTokens;
    ASSAY_ASSIGN_OR_RETURN(cache_.layout, MakeKvPageLayout(format.key, format.value, kHeadDim));
    token_bytes_ = cache_.layout.page_bytes() / kKvPageTokens;
    cache_.num_kv_heads = num_kv_heads;
    cache_.num_blocks = int64_t{num_seqs} * stride_;
    constexpr int64_t kEnough = int64_t{1} << 30;
    cache_.num_layers = static_cast<int>(
        std::clamp<int64_t>(kEnough / std::max<int64_t>(bytes_read(), 1), 1, 16) + 1);
    ASSAY_ASSIGN_OR_RETURN(memory_, DeviceBuffer<uint8_t>::Allocate(cache_.bytes()));
    cache_.base = memory_.data();

    std::vector<int32_t> positions, sequences, last_positions, tables;
    for (int sequence = 0; sequence < num_seqs; ++sequence) {
      for (int position = 0; position < context_len; ++position) {
        positions.push_back(position);
        sequences.push_back(sequence);
      }
      last_positions.push_back(context_len - 1);
    }
    for (int sequence = 0; sequence < num_seqs; ++sequence) {
      for (int page = 0; page < stride_; ++page) {
        tables.push_back(blocks == "grown" ? page * num_seqs + sequence
                                           : sequence * stride_ + page);
      }
    }
    if (blocks == "random") std::ranges::shuffle(tables, std::mt19937(1));
    std::vector<float> cosines, sines;
    for (int position = 0; position < std::max(context_len, kKvPageTokens); ++position) {
      for (int i = 0; i < kHeadDim / 2; ++i) {
        const double angle = position * std::pow(10000.0, -2.0 * i / kHeadDim);
        cosines.push_back(static_cast<float>(std::cos(angle)));
        sines.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    const size_t channels = static_cast<size_t>(num_kv_heads) * kHeadDim;
    const auto levels = static_cast<float>((1 << format.key.bit_width) - 1);
    ASSAY_RETURN_IF_ERROR(Upload(positions, &positions_, stream));
    ASSAY_RETURN_IF_ERROR(Upload(sequences, &sequences_, stream));
    ASSAY_RETURN_IF_ERROR(Upload(last_positions, &last_positions_, stream));
    ASSAY_RETURN_IF_ERROR(Upload(tables, &tables_, stream));
    ASSAY_RETURN_IF_ERROR(Upload(cosines, &cosines_, stream));
    ASSAY_RETURN_IF_ERROR(Upload(sines, &sines_, stream));
    ASSAY_RETURN_IF_ERROR(Upload(std::vector<float>(channels, 6 / levels), &scale_, stream));
    ASSAY_RETURN_IF_ERROR(
        Upload(std::vector<float>(channels, std::floor(levels / 2)), &zero_, stream));
    ASSAY_RETURN_IF_ERROR(Upload(std::vector<float>(channels, 0.5f), &bias_, stream));

    const int64_t width = int64_t{num_heads + 2 * num_kv_heads} * kHeadDim;
    ASSAY_ASSIGN_OR_RETURN(qkv_, DeviceBuffer<__nv_bfloat16>::Allocate(kRowsPerWrite * width));
    ASSAY_ASSIGN_OR_RETURN(query_, DeviceBuffer<__nv_bfloat16>::Allocate(kRowsPerWrite * width));
    ASSAY_RETURN_IF_ERROR(FillRandom(qkv_.data(), qkv_.size(), 0, 1, 5, stream));
    for (int layer = 0; layer < cache_.num_layers; ++layer) {
      for (int64_t row = 0; row < num_tokens_; row += kRowsPerWrite) {
        StepRows rows = all_rows();
        rows.num_rows = static_cast<int>(std::min<int64_t>(kRowsPerWrite, num_tokens_ - row));
        rows.positions += row;
        rows.sequences += row;
        ASSAY_RETURN_IF_ERROR(Write(layer, rows, 1, stream));
      }
    }
    return CudaStatus(cudaStreamSynchronize(stream), "fill");
  }

  template <typename T>
  static absl::Status Upload(const std::vector<T>& values, DeviceBuffer<T>* buffer,
                             cudaStream_t stream) {
    ASSAY_ASSIGN_OR_RETURN(*buffer, DeviceBuffer<T>::Allocate(static_cast<int64_t>(values.size())));
    ASSAY_RETURN_IF_ERROR(buffer->CopyFrom(values, stream));
    return CudaStatus(cudaStreamSynchronize(stream), "upload");
  }

  Format format_;
  KvCache cache_;
  int num_seqs_ = 0;
  int num_heads_ = 0;
  int64_t num_tokens_ = 0;
  int stride_ = 0;
  int token_bytes_ = 0;
  DeviceBuffer<uint8_t> memory_;
  DeviceBuffer<int32_t> positions_, sequences_, last_positions_, tables_;
  DeviceBuffer<float> cosines_, sines_, scale_, zero_, bias_;
  DeviceBuffer<__nv_bfloat16> qkv_, query_;
};

class Bench {
 public:
  Bench(const Options& options, cudaStream_t stream) : options_(options), stream_(stream) {}

  absl::Status Run() {
    ASSAY_ASSIGN_OR_RETURN(copy_gb_per_s_, CopyGbPerS(stream_));
    Print("copy", "", fmt::format("\"gb_per_s\":{:.0f}", copy_gb_per_s_),
          fmt::format("{:.0f} GB/s read and written", copy_gb_per_s_));
    for (const std::string& name : options_.formats) {
      ASSAY_ASSIGN_OR_RETURN(const Format format, FormatOf(name));
      for (const int context_len : options_.contexts) {
        ASSAY_RETURN_IF_ERROR(Decode(name, format, 64, context_len, 28, 4));  // the 7B model
        ASSAY_RETURN_IF_ERROR(Decode(name, format, 32, context_len, 32, 8));  // the 8B model
        ASSAY_RETURN_IF_ERROR(Decode(name, format, 1, context_len, 28, 4));
      }
      if (options_.decode_only) continue;
      ASSAY_RETURN_IF_ERROR(Prefill(name, format, 1, 8192));
      ASSAY_RETURN_IF_ERROR(Prefill(name, format, 16, 512));
      ASSAY_RETURN_IF_ERROR(Write(name, format));
    }
    return absl::OkStatus();
  }

 private:
  void Print(const std::string& what, const std::string& shape, const std::string& json,
             const std::string& text) const {
    if (options_.json) {
      fmt::print("{{\"what\":\"{}\",\"shape\":\"{}\",{}}}\n", what, shape, json);
    } else {
      fmt::print("{:<16} {:<34} {}\n", what, shape, text);
    }
    std::fflush(stdout);
  }

  absl::Status Decode(const std::string& name, const Format& format, int num_seqs, int context_len,
                      int num_heads, int num_kv_heads) {
    ASSAY_ASSIGN_OR_RETURN(const auto cache,
                           Cache::Make(format, options_.blocks, num_seqs, context_len, num_heads,
                                       num_kv_heads, stream_));
    const int64_t q_size = int64_t{num_heads} * kHeadDim;
    ASSAY_ASSIGN_OR_RETURN(const auto query,
                           DeviceBuffer<__nv_bfloat16>::Allocate(num_seqs * q_size));
    ASSAY_ASSIGN_OR_RETURN(const auto output,
                           DeviceBuffer<__nv_bfloat16>::Allocate(num_seqs * q_size));
    ASSAY_RETURN_IF_ERROR(FillRandom(query.data(), query.size(), 0, 1, 3, stream_));
    ASSAY_ASSIGN_OR_RETURN(const auto workspace,
                           DecodeWorkspace::Make({.max_rows = num_seqs,
                                                  .max_context_len = context_len,
                                                  .num_heads = num_heads,
                                                  .num_kv_heads = num_kv_heads,
                                                  .head_dim = kHeadDim}));
    const StepRows rows = cache->last_rows();
    ASSAY_RETURN_IF_ERROR(PlanDecode(rows, cache->layout(), workspace, stream_));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream_));
    const auto launch = [&](int i) {
      AttentionArgs args =
          cache->Attention(i % cache->num_layers(), rows, query.data(), output.data());
      args.fetches_early = true;
      return DecodeAttention(args, workspace, stream_);
    };
    ASSAY_ASSIGN_OR_RETURN(const double ms, MedianMs(stream_, launch));
    const double gb_per_s = static_cast<double>(cache->bytes_read()) / ms / 1e6;
    Print(
        "decode " + name,
        fmt::format("B {} context {} heads {}/{}", num_seqs, context_len, num_heads, num_kv_heads),
        fmt::format("\"us\":{:.1f},\"megabytes\":{:.1f},\"gb_per_s\":{:.0f},\"share\":{:.3f}",
                    ms * 1e3, static_cast<double>(cache->bytes_read()) / 1e6, gb_per_s,
                    gb_per_s / copy_gb_per_s_),
        fmt::format("{:8.1f} us {:8.1f} MB {:6.0f} GB/s  {:.3f} of copy", ms * 1e3,
                    static_cast<double>(cache->bytes_read()) / 1e6, gb_per_s,
                    gb_per_s / copy_gb_per_s_));
    return absl::OkStatus();
  }

  absl::Status Prefill(const std::string& name, const Format& format, int num_seqs,
                       int context_len) {
    constexpr int kHeads = 28;
    constexpr int kKvHeads = 4;
    constexpr int64_t kQSize = kHeads * kHeadDim;
    ASSAY_ASSIGN_OR_RETURN(const auto cache, Cache::Make(format, options_.blocks, num_seqs,
                                                         context_len, kHeads, kKvHeads, stream_));
    const int num_rows = num_seqs * context_len;
    ASSAY_ASSIGN_OR_RETURN(const auto query,
                           DeviceBuffer<__nv_bfloat16>::Allocate(num_rows * kQSize));
    ASSAY_ASSIGN_OR_RETURN(const auto output,
                           DeviceBuffer<__nv_bfloat16>::Allocate(num_rows * kQSize));
    ASSAY_RETURN_IF_ERROR(FillRandom(query.data(), query.size(), 0, 1, 3, stream_));
    std::vector<PrefillChunk> chunks;
    for (int i = 0; i < num_seqs; ++i) {
      chunks.push_back({.first_row = i * context_len, .num_rows = context_len, .sequence = i});
    }
    const std::vector<PrefillChunk> tiles = MakePrefillTiles(chunks, kHeads, kKvHeads);
    ASSAY_ASSIGN_OR_RETURN(const auto tiles_device, DeviceBuffer<PrefillChunk>::Allocate(
                                                        static_cast<int64_t>(tiles.size())));
    ASSAY_RETURN_IF_ERROR(tiles_device.CopyFrom(tiles, stream_));
    const auto launch = [&](int i) {
      return PrefillAttention(
          cache->Attention(i % cache->num_layers(), cache->all_rows(), query.data(), output.data()),
          tiles_device.data(), static_cast<int>(tiles.size()), stream_);
    };
    ASSAY_ASSIGN_OR_RETURN(const double ms, MedianMs(stream_, launch));
    const double scores = 0.5 * num_seqs * context_len * (context_len + 1.0) * kHeads;
    const double tflops = 4 * scores * kHeadDim / ms / 1e9;
    Print("prefill " + name, fmt::format("{} x {} tokens, heads 28/4", num_seqs, context_len),
          fmt::format("\"us\":{:.1f},\"tflop_per_s\":{:.0f}", ms * 1e3, tflops),
          fmt::format("{:8.1f} us {:6.0f} TFLOP/s (causal)", ms * 1e3, tflops));
    return absl::OkStatus();
  }

  absl::Status Write(const std::string& name, const Format& format) {
    constexpr int kHeads = 28;
    ASSAY_ASSIGN_OR_RETURN(const auto cache,
                           Cache::Make(format, options_.blocks, 256, 128, kHeads, 4, stream_));
    const auto launch = [&](int i) {
      return cache->Write(i % cache->num_layers(), cache->last_rows(), kHeads, stream_);
    };
    ASSAY_ASSIGN_OR_RETURN(const double ms, MedianMs(stream_, launch));
    Print("write " + name, "256 rows, heads 28/4", fmt::format("\"us\":{:.1f}", ms * 1e3),
          fmt::format("{:8.1f} us", ms * 1e3));
    return absl::OkStatus();
  }

  const Options options_;
  cudaStream_t stream_;
  double copy_gb_per_s_ = 0;
};

absl::Status Main(const Options& options) {
  ASSAY_ASSIGN_OR_RETURN(const DeviceProperties device, UseDevice(0));
  fmt::print(stderr, "{}\n", device.name);
  ASSAY_ASSIGN_OR_RETURN(const Stream stream, MakeStream());
  return Bench(options, stream.get()).Run();
}

}  // namespace
}  // namespace assay::engine::cuda

int main(int argc, char** argv) {
  assay::engine::cuda::Options options;
  CLI::App app("Rates of attention on the GPU");
  app.add_option("--formats", options.formats, "kv16, kv8, kv4, kv3, static4, static3")
      ->delimiter(',');
  app.add_option("--contexts", options.contexts, "tokens")->delimiter(',');
  app.add_option("--blocks", options.blocks, "grown, contiguous or random")
      ->check(CLI::IsMember({"grown", "contiguous", "random"}));
  app.add_flag("--json", options.json, "a JSON object a line");
  app.add_flag("--decode-only", options.decode_only, "no prefill, no writes");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = assay::engine::cuda::Main(options);
  if (!status.ok()) fmt::print(stderr, "attention_bench: {}\n", assay::Message(status));
  return status.ok() ? 0 : 1;
}
