// Linears of decoding by themselves: bytes of the weight per second against what a copy reaches.
//
//   product_bench [--models 1.5b,7b,32b,70b] [--linears qkv,o,gate_up,down,lm_head]
//                 [--rows 1,4,16,64,128,256] [--bits 16,8,4,3] [--peers]
//
// Each figure is the median of several replays of a graph of many products, over as many different
// weights as do not stay in the second-level cache. The peers are cuBLASLt with the kernels that
// gemm.h pins, and cuBLASLt with the fastest kernel it proposes, sums split or not.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/kernels/cuda/device.h"
#include "engine/kernels/cuda/few_rows.h"
#include "engine/kernels/cuda/gemm.h"
#include "engine/kernels/cuda/packed_weight.h"
#include "engine/kernels/cuda/random_fill.h"
#include "engine/kernels/cuda/row_hash.h"

namespace assay::engine::cuda {
namespace {

constexpr int kSamples = 7;
constexpr int64_t kColdBytes = int64_t{300} << 20;  // of weights: several times the cache
constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;

struct Shape {
  const char* model;
  const char* name;
  int64_t out_features;
  int64_t in_features;
  bool float_output = false;
};

constexpr Shape kShapes[] = {
    {"1.5b", "qkv", 2048, 1536},
    {"1.5b", "o", 1536, 1536},
    {"1.5b", "gate_up", 17920, 1536},
    {"1.5b", "down", 1536, 8960},
    {"1.5b", "lm_head", 151936, 1536, true},
    {"7b", "qkv", 4608, 3584},
    {"7b", "o", 3584, 3584},
    {"7b", "gate_up", 37888, 3584},
    {"7b", "down", 3584, 18944},
    {"7b", "lm_head", 152064, 3584, true},
    // Of one of two ranks.
    {"32b", "qkv", 3584, 5120},
    {"32b", "o", 5120, 2560},
    {"32b", "gate_up", 27648, 5120},
    {"32b", "down", 5120, 13824},
    {"32b", "lm_head", 76032, 5120, true},
    {"70b", "qkv", 5120, 8192},
    {"70b", "o", 8192, 4096},
    {"70b", "gate_up", 28672, 8192},
    {"70b", "down", 8192, 14336},
    {"70b", "lm_head", 64128, 8192, true},
};

// Median microseconds of one of `count` launches, launch(i) being the i-th.
absl::StatusOr<double> MedianUs(cudaStream_t stream, int count,
                                const std::function<absl::Status(int)>& launch) {
  ASSAY_ASSIGN_OR_RETURN(const Event start, MakeEvent());
  ASSAY_ASSIGN_OR_RETURN(const Event end, MakeEvent());
  ASSAY_RETURN_IF_ERROR(launch(0));  // kernels are loaded outside of a capture
  ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
  ASSAY_ASSIGN_OR_RETURN(const Graph graph, CaptureGraph(stream, [&] {
                           for (int i = 0; i < count; ++i) ASSAY_RETURN_IF_ERROR(launch(i));
                           return absl::OkStatus();
                         }));
  std::vector<double> samples;
  for (int i = -1; i < kSamples; ++i) {
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(start.get(), stream));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaGraphLaunch(graph.get(), stream));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(end.get(), stream));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventSynchronize(end.get()));
    ASSAY_ASSIGN_OR_RETURN(const float ms, ElapsedMs(start, end));
    if (i >= 0) samples.push_back(double{ms} * 1000 / count);
  }
  std::ranges::sort(samples);
  return samples[kSamples / 2];
}

absl::StatusOr<double> CopyBytesPerUs(cudaStream_t stream) {
  constexpr int64_t kBytes = int64_t{2} << 30;
  ASSAY_ASSIGN_OR_RETURN(const auto from, DeviceBuffer<uint8_t>::Allocate(kBytes));
  ASSAY_ASSIGN_OR_RETURN(const auto to, DeviceBuffer<uint8_t>::Allocate(kBytes));
  ASSAY_RETURN_IF_ERROR(FillRandomBytes(from.data(), kBytes, 1, stream));
  ASSAY_ASSIGN_OR_RETURN(const Event start, MakeEvent());
  ASSAY_ASSIGN_OR_RETURN(const Event end, MakeEvent());
  std::vector<double> samples;
  for (int i = 0; i < kSamples; ++i) {
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(start.get(), stream));
    ASSAY_RETURN_IF_CUDA_ERROR(
        cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, stream));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(end.get(), stream));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventSynchronize(end.get()));
    ASSAY_ASSIGN_OR_RETURN(const float ms, ElapsedMs(start, end));
    samples.push_back(double{ms} * 1000);
  }
  std::ranges::sort(samples);
  const double us = samples[kSamples / 2];
  return 2.0 * kBytes / us;
}

// The fastest of what cuBLASLt proposes for exactly this problem.
class FreeCublas {
 public:
  FreeCublas(cublasLtHandle_t lt, const Shape& shape, int rows, uint8_t* workspace)
      : lt_(lt), workspace_(workspace) {
    const cudaDataType_t output = shape.float_output ? CUDA_R_32F : CUDA_R_16BF;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    cublasLtMatmulDescInit(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    cublasLtMatmulDescSetAttribute(&operation_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                   sizeof(transposed));
    const auto out = static_cast<uint64_t>(shape.out_features);
    const auto in = static_cast<uint64_t>(shape.in_features);
    const auto count = static_cast<uint64_t>(rows);
    cublasLtMatrixLayoutInit(&weight_, CUDA_R_16BF, in, out, shape.in_features);
    cublasLtMatrixLayoutInit(&input_, CUDA_R_16BF, in, count, shape.in_features);
    cublasLtMatrixLayoutInit(&output_, output, out, count, shape.out_features);
  }

  std::vector<cublasLtMatmulAlgo_t> Propose() {
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulPreferenceInit(&preference);
    const size_t bytes = kWorkspaceBytes;
    cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                         &bytes, sizeof(bytes));
    cublasLtMatmulHeuristicResult_t results[8];
    int count = 0;
    cublasLtMatmulAlgoGetHeuristic(lt_, &operation_, &weight_, &input_, &output_, &output_,
                                   &preference, 8, results, &count);
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    for (int i = 0; i < count; ++i) algorithms.push_back(results[i].algo);
    return algorithms;
  }

  absl::Status Run(const cublasLtMatmulAlgo_t& algorithm, const __nv_bfloat16* x,
                   const __nv_bfloat16* weight, void* y, cudaStream_t stream) {
    const float one = 1;
    const float zero = 0;
    const cublasStatus_t status =
        cublasLtMatmul(lt_, &operation_, &one, weight, &weight_, x, &input_, &zero, y, &output_, y,
                       &output_, &algorithm, workspace_, kWorkspaceBytes, stream);
    if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
    return Internal("cublasLtMatmul: {}", cublasLtGetStatusName(status));
  }

 private:
  cublasLtHandle_t lt_;
  uint8_t* workspace_;
  cublasLtMatmulDescOpaque_t operation_;
  cublasLtMatrixLayoutOpaque_t weight_;
  cublasLtMatrixLayoutOpaque_t input_;
  cublasLtMatrixLayoutOpaque_t output_;
};

struct Options {
  std::vector<std::string> models = {"1.5b", "7b"};
  std::vector<std::string> linears;  // empty: all
  std::vector<int> rows = {1, 4, 16, 64, 128, 256};
  std::vector<int> bits = {16};
  bool peers = false;
};

// Packed weights whose codes, scales and zeros are random.
absl::Status FillPacked(const Shape& shape, int bits, uint8_t* tiles, cudaStream_t stream) {
  const int64_t row_bytes = shape.in_features * bits / 8;
  const int64_t num_groups = shape.in_features / kPackedTileDepth;
  ASSAY_ASSIGN_OR_RETURN(const auto codes,
                         DeviceBuffer<uint8_t>::Allocate(shape.out_features * row_bytes));
  ASSAY_ASSIGN_OR_RETURN(const auto scales,
                         DeviceBuffer<float>::Allocate(shape.out_features * num_groups));
  ASSAY_RETURN_IF_ERROR(FillRandomBytes(codes.data(), codes.size(), 3, stream));
  ASSAY_RETURN_IF_ERROR(FillRandom(scales.data(), scales.size(), 0.01f, 0.002f, 4, stream));
  ASSAY_RETURN_IF_ERROR(PackWeight({.codes = codes.data(),
                                    .row_bytes = row_bytes,
                                    .scales = scales.data(),
                                    .num_groups = num_groups,
                                    .group_width = kPackedTileDepth,
                                    .bit_width = bits,
                                    .num_features = shape.out_features,
                                    .in_features = shape.in_features,
                                    .tiles = tiles},
                                   stream));
  return CudaStatus(cudaStreamSynchronize(stream), "PackWeight");
}

// One shape with weights of `bits` bits, 16 being bf16.
class ShapeBench {
 public:
  ShapeBench(const Shape& shape, int bits, const Options& options, double copy_rate,
             cudaStream_t stream)
      : shape_(shape), bits_(bits), options_(options), copy_rate_(copy_rate), stream_(stream) {}

  absl::Status Measure() {
    ASSAY_RETURN_IF_ERROR(Prepare());
    for (const int rows : options_.rows) {
      ASSAY_ASSIGN_OR_RETURN(const double own, MedianUs(stream_, count(), [&](int i) {
                               const FewRowsArgs args = ArgsOf(i, rows);
                               if (bits_ == 16) return MultiplyFewRows(args, stream_);
                               return MultiplyPacked(args, {bits_, Bytes(i)}, stream_);
                             }));
      std::printf("%-5s %-8s %6ld x %5ld  w%-2d rows %3d  own %8.2f us %5.2f", shape_.model,
                  shape_.name, shape_.out_features, shape_.in_features, bits_, rows, own,
                  Share(own));
      if (options_.peers && bits_ == 16) ASSAY_RETURN_IF_ERROR(MeasurePeers(rows));
      std::printf("\n");
      std::fflush(stdout);
    }
    return absl::OkStatus();
  }

 private:
  int64_t weight_bytes() const {
    return bits_ == 16 ? 2 * shape_.out_features * shape_.in_features
                       : PackedWeightBytes(bits_, shape_.out_features, shape_.in_features);
  }
  int count() const { return std::max(4, 2 * num_weights_); }
  const uint8_t* Bytes(int i) const { return weights_.data() + i % num_weights_ * weight_bytes(); }
  const __nv_bfloat16* weight(int i) const {
    return reinterpret_cast<const __nv_bfloat16*>(Bytes(i));
  }
  FewRowsArgs ArgsOf(int i, int rows) const {
    return {.x = x_.data(),
            .weight = weight(i),
            .y = y_.data(),
            .num_rows = rows,
            .out_features = shape_.out_features,
            .in_features = shape_.in_features,
            .float_output = shape_.float_output};
  }
  double Share(double us) const { return static_cast<double>(weight_bytes()) / us / copy_rate_; }

  absl::Status Prepare() {
    num_weights_ = static_cast<int>(std::max<int64_t>(1, kColdBytes / weight_bytes()));
    const int max_rows = *std::ranges::max_element(options_.rows);
    ASSAY_ASSIGN_OR_RETURN(weights_,
                           DeviceBuffer<uint8_t>::Allocate(weight_bytes() * num_weights_));
    ASSAY_ASSIGN_OR_RETURN(x_,
                           DeviceBuffer<__nv_bfloat16>::Allocate(max_rows * shape_.in_features));
    ASSAY_ASSIGN_OR_RETURN(y_, DeviceBuffer<float>::Allocate(max_rows * shape_.out_features));
    ASSAY_RETURN_IF_ERROR(FillRandom(x_.data(), x_.size(), 0, 1, 2, stream_));
    if (bits_ != 16) {
      for (int i = 0; i < num_weights_; ++i) {
        ASSAY_RETURN_IF_ERROR(
            FillPacked(shape_, bits_, weights_.data() + i * weight_bytes(), stream_));
      }
      return absl::OkStatus();
    }
    ASSAY_RETURN_IF_ERROR(FillRandom(reinterpret_cast<__nv_bfloat16*>(weights_.data()),
                                     weights_.size() / 2, 0, 0.02f, 1, stream_));
    if (!options_.peers) return absl::OkStatus();
    ASSAY_ASSIGN_OR_RETURN(lt_, MakeCublasLt());
    ASSAY_ASSIGN_OR_RETURN(workspace_, DeviceBuffer<uint8_t>::Allocate(kWorkspaceBytes));
    std::vector<const __nv_bfloat16*> pointers;
    for (int i = 0; i < num_weights_; ++i) pointers.push_back(weight(i));
    ASSAY_ASSIGN_OR_RETURN(pinned_, Gemm::Choose(lt_.get(),
                                                 {.out_features = shape_.out_features,
                                                  .in_features = shape_.in_features,
                                                  .float_output = shape_.float_output},
                                                 max_rows, pointers, stream_));
    return absl::OkStatus();
  }

  // Whether the own product's bits are those of the pinned kernel.
  absl::StatusOr<bool> AgreesWithPinned(int rows) {
    const int64_t row_bytes = shape_.out_features * (shape_.float_output ? 4 : 2);
    ASSAY_ASSIGN_OR_RETURN(const auto hashes, DeviceBuffer<uint64_t>::Allocate(rows));
    std::vector<uint64_t> results[2];
    for (const bool own : {false, true}) {
      ASSAY_RETURN_IF_ERROR(
          own ? MultiplyFewRows(ArgsOf(0, rows), stream_)
              : pinned_->Run(x_.data(), weight(0), nullptr, y_.data(), rows, stream_));
      ASSAY_RETURN_IF_ERROR(HashRows({.matrix = reinterpret_cast<const uint8_t*>(y_.data()),
                                      .hashes = hashes.data(),
                                      .num_rows = rows,
                                      .row_bytes = row_bytes},
                                     stream_));
      results[own].resize(static_cast<size_t>(rows));
      ASSAY_RETURN_IF_ERROR(hashes.CopyTo(std::span(results[own]), stream_));
      ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream_));
    }
    return results[0] == results[1];
  }

  absl::Status MeasurePeers(int rows) {
    ASSAY_ASSIGN_OR_RETURN(const double pinned, MedianUs(stream_, count(), [&](int i) {
                             return pinned_->Run(x_.data(), weight(i), nullptr, y_.data(), rows,
                                                 stream_);
                           }));
    FreeCublas cublas(lt_.get(), shape_, rows, workspace_.data());
    double best = 0;
    for (const cublasLtMatmulAlgo_t& algorithm : cublas.Propose()) {
      ASSAY_ASSIGN_OR_RETURN(const double us, MedianUs(stream_, count(), [&](int i) {
                               return cublas.Run(algorithm, x_.data(), weight(i), y_.data(),
                                                 stream_);
                             }));
      if (best == 0 || us < best) best = us;
    }
    ASSAY_ASSIGN_OR_RETURN(const bool same, AgreesWithPinned(rows));
    std::printf("   pinned %8.2f us %5.2f   best %8.2f us %5.2f   %s bits", pinned, Share(pinned),
                best, Share(best), same ? "the same" : "other");
    return absl::OkStatus();
  }

  const Shape& shape_;
  const int bits_;
  const Options& options_;
  const double copy_rate_;
  const cudaStream_t stream_;
  int num_weights_ = 0;
  CublasLt lt_;
  std::optional<Gemm> pinned_;
  DeviceBuffer<uint8_t> weights_;
  DeviceBuffer<uint8_t> workspace_;
  DeviceBuffer<__nv_bfloat16> x_;
  DeviceBuffer<float> y_;
};

absl::Status Run(const Options& options) {
  ASSAY_RETURN_IF_ERROR(UseDevice(0).status());
  ASSAY_ASSIGN_OR_RETURN(const Stream stream, MakeStream());
  ASSAY_ASSIGN_OR_RETURN(const double copy_rate, CopyBytesPerUs(stream.get()));
  std::printf("copy %.0f GB/s; shares of it, by the weight's bytes\n", copy_rate / 1e3);
  for (const Shape& shape : kShapes) {
    if (std::ranges::find(options.models, shape.model) == options.models.end()) continue;
    if (!options.linears.empty() &&
        std::ranges::find(options.linears, shape.name) == options.linears.end()) {
      continue;
    }
    for (const int bits : options.bits) {
      ASSAY_RETURN_IF_ERROR(ShapeBench(shape, bits, options, copy_rate, stream.get()).Measure());
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace assay::engine::cuda

int main(int argc, char** argv) {
  assay::engine::cuda::Options options;
  CLI::App app("Rates of linears on the GPU");
  app.add_option("--models", options.models, "1.5b, 7b, 32b, 70b")->delimiter(',');
  app.add_option("--linears", options.linears, "qkv, o, gate_up, down, lm_head")->delimiter(',');
  app.add_option("--rows", options.rows, "Rows of the input")->delimiter(',');
  app.add_option("--bits", options.bits, "Of a weight: 16, 8, 4, 3")->delimiter(',');
  app.add_flag("--peers", options.peers, "Measure cuBLASLt too");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = assay::engine::cuda::Run(options);
  if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}
