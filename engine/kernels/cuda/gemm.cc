#include "engine/kernels/cuda/gemm.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <set>

#include "base/status.h"
#include "engine/kernels/cuda/random_fill.h"
#include "engine/kernels/cuda/row_hash.h"

namespace assay::engine::cuda {
namespace {

absl::Status CublasStatus(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return Internal("{}: {}", call, cublasLtGetStatusName(status));
}

#define ASSAY_RETURN_IF_CUBLAS_ERROR(call) ASSAY_RETURN_IF_ERROR(CublasStatus((call), #call))

// cuBLASLt is column-major: the transpose of y = x W^T is y^T = W x^T, with W^T and x^T as stored.
struct Problem {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t weight;
  cublasLtMatrixLayoutOpaque_t input;
  cublasLtMatrixLayoutOpaque_t output;
};

absl::Status Describe(const GemmShape& shape, int num_rows, const __nv_bfloat16* bias,
                      Problem* problem) {
  const cudaDataType_t output_type = shape.float_output ? CUDA_R_32F : CUDA_R_16BF;
  ASSAY_RETURN_IF_CUBLAS_ERROR(
      cublasLtMatmulDescInit(&problem->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t transposed = CUBLAS_OP_T;
  ASSAY_RETURN_IF_CUBLAS_ERROR(cublasLtMatmulDescSetAttribute(
      &problem->operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)));
  if (shape.has_bias) {
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const cudaDataType_t bias_type = CUDA_R_16BF;
    ASSAY_RETURN_IF_CUBLAS_ERROR(cublasLtMatmulDescSetAttribute(
        &problem->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof(epilogue)));
    ASSAY_RETURN_IF_CUBLAS_ERROR(cublasLtMatmulDescSetAttribute(
        &problem->operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type, sizeof(bias_type)));
    ASSAY_RETURN_IF_CUBLAS_ERROR(cublasLtMatmulDescSetAttribute(
        &problem->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
        sizeof(bias)));  // NOLINT(bugprone-sizeof-expression): a pointer is what it takes
  }
  const auto out = static_cast<uint64_t>(shape.out_features);
  const auto in = static_cast<uint64_t>(shape.in_features);
  const auto rows = static_cast<uint64_t>(num_rows);
  ASSAY_RETURN_IF_CUBLAS_ERROR(
      cublasLtMatrixLayoutInit(&problem->weight, CUDA_R_16BF, in, out, shape.in_features));
  ASSAY_RETURN_IF_CUBLAS_ERROR(
      cublasLtMatrixLayoutInit(&problem->input, CUDA_R_16BF, in, rows, shape.in_features));
  ASSAY_RETURN_IF_CUBLAS_ERROR(
      cublasLtMatrixLayoutInit(&problem->output, output_type, out, rows, shape.out_features));
  return absl::OkStatus();
}

absl::Status Multiply(cublasLtHandle_t lt, const GemmShape& shape,
                      const cublasLtMatmulAlgo_t& algorithm, const __nv_bfloat16* x,
                      const __nv_bfloat16* weight, const __nv_bfloat16* bias, void* y, int num_rows,
                      cudaStream_t stream) {
  Problem problem;
  ASSAY_RETURN_IF_ERROR(Describe(shape, num_rows, bias, &problem));
  const float one = 1;
  const float zero = 0;
  return CublasStatus(
      cublasLtMatmul(lt, &problem.operation, &one, weight, &problem.weight, x, &problem.input,
                     &zero, y, &problem.output, y, &problem.output, &algorithm, nullptr, 0, stream),
      "cublasLtMatmul");
}

// Numbers of rows that get a choice of their own; a number between takes the next larger's. Among
// them are those of the decode graphs (decoder/cuda/cuda_pass.cc), and they are close together
// where steps of many decoding rows and some of prompts are: a kernel loses with fewer rows than it
// was chosen for. That of 512 takes twice the best one's time for 272, that of 192 more for 160
// than for 192.
constexpr int kRowBuckets[] = {8,   16,  32,  64,  80,  96,  112, 128, 160,  192,  224,
                               256, 288, 320, 384, 448, 512, 640, 768, 1024, 1536, 2048};
// The fastest of eight takes 0.2 % less than that of four, and a model is loaded 0.9 s later for
// their kernels (docs/benchmarks.md).
constexpr int kMostCandidates = 4;
// Results that are compared: kernels that add in other orders differ in float32's last bits, which
// shows in about one of 10,000 results after rounding to bf16.
constexpr int64_t kComparedResults = int64_t{1} << 20;
constexpr int kTimedRuns = 5;

}  // namespace

absl::StatusOr<CublasLt> MakeCublasLt() {
  cublasLtHandle_t handle = nullptr;
  ASSAY_RETURN_IF_CUBLAS_ERROR(cublasLtCreate(&handle));
  return CublasLt(handle);
}

// Finds out what the proposals for one shape compute and how fast.
class GemmChooser {
 public:
  GemmChooser(cublasLtHandle_t lt, const GemmShape& shape, int max_rows,
              std::span<const __nv_bfloat16* const> weights, cudaStream_t stream)
      : lt_(lt), shape_(shape), max_rows_(max_rows), weights_(weights), stream_(stream) {}

  absl::StatusOr<Gemm> Choose() {
    ASSAY_RETURN_IF_ERROR(Prepare());
    for (Bucket& bucket : buckets_) {
      ASSAY_RETURN_IF_ERROR(Propose(&bucket));
      for (Candidate& candidate : bucket.candidates) {
        ASSAY_RETURN_IF_ERROR(Probe(bucket.max_rows, &candidate));
      }
    }
    ASSAY_RETURN_IF_ERROR(ChooseReference());
    Gemm gemm(lt_, shape_);
    for (Bucket& bucket : buckets_) {
      ASSAY_ASSIGN_OR_RETURN(const std::optional<GemmChoice> choice, ChooseFor(&bucket));
      if (choice) gemm.choices_.push_back(*choice);
    }
    return gemm;
  }

 private:
  struct Candidate {
    cublasLtMatmulAlgo_t algorithm;
    std::vector<uint64_t> hashes;  // of the first rows; empty when it does not run
  };
  struct Bucket {
    int max_rows = 0;
    std::vector<Candidate> candidates;
  };

  int64_t row_bytes() const { return shape_.out_features * (shape_.float_output ? 4 : 2); }

  absl::Status Prepare() {
    for (const int rows : kRowBuckets) {
      buckets_.push_back({.max_rows = std::min(rows, max_rows_), .candidates = {}});
      if (rows >= max_rows_) break;
    }
    // Runs start at any of these rows, so that small buckets are compared on many rows too.
    const int64_t rows = std::max<int64_t>(
        buckets_.back().max_rows,
        std::min<int64_t>(2048, kComparedResults / std::max<int64_t>(shape_.out_features, 1)));
    num_rows_ = static_cast<int>(rows);
    ASSAY_ASSIGN_OR_RETURN(x_, DeviceBuffer<__nv_bfloat16>::Allocate(rows * shape_.in_features));
    ASSAY_ASSIGN_OR_RETURN(y_, DeviceBuffer<uint8_t>::Allocate(rows * row_bytes()));
    ASSAY_ASSIGN_OR_RETURN(bias_, DeviceBuffer<__nv_bfloat16>::Allocate(shape_.out_features));
    ASSAY_ASSIGN_OR_RETURN(hashes_, DeviceBuffer<uint64_t>::Allocate(rows));
    ASSAY_ASSIGN_OR_RETURN(start_, MakeEvent());
    ASSAY_ASSIGN_OR_RETURN(end_, MakeEvent());
    ASSAY_RETURN_IF_ERROR(FillRandom(x_.data(), x_.size(), 0, 1, /*seed=*/1, stream_));
    return FillRandom(bias_.data(), bias_.size(), 0, 1, /*seed=*/2, stream_);
  }

  absl::Status Propose(Bucket* bucket) {
    Problem problem;
    ASSAY_RETURN_IF_ERROR(Describe(shape_, bucket->max_rows, bias_.data(), &problem));
    cublasLtMatmulPreferenceOpaque_t preference;
    ASSAY_RETURN_IF_CUBLAS_ERROR(cublasLtMatmulPreferenceInit(&preference));
    // Neither a split sum nor memory to put its parts into.
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_NONE;
    const size_t workspace_bytes = 0;
    ASSAY_RETURN_IF_CUBLAS_ERROR(cublasLtMatmulPreferenceSetAttribute(
        &preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof(reductions)));
    ASSAY_RETURN_IF_CUBLAS_ERROR(
        cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &workspace_bytes, sizeof(workspace_bytes)));
    cublasLtMatmulHeuristicResult_t results[kMostCandidates];
    int num_results = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        lt_, &problem.operation, &problem.weight, &problem.input, &problem.output, &problem.output,
        &preference, kMostCandidates, results, &num_results);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) return absl::OkStatus();
    ASSAY_RETURN_IF_ERROR(CublasStatus(status, "cublasLtMatmulAlgoGetHeuristic"));
    for (int i = 0; i < num_results; ++i) {
      if (results[i].state != CUBLAS_STATUS_SUCCESS || results[i].workspaceSize != 0) continue;
      int32_t splits = 0;
      size_t written = 0;
      ASSAY_RETURN_IF_CUBLAS_ERROR(cublasLtMatmulAlgoConfigGetAttribute(
          &results[i].algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits, sizeof(splits), &written));
      if (splits > 1) continue;
      bucket->candidates.push_back({.algorithm = results[i].algo, .hashes = {}});
    }
    return absl::OkStatus();
  }

  // The hashes of what the candidate makes of the first rows, `rows` at a time; none when it does
  // not make the same of fewer at a time, for which it also runs.
  absl::Status Probe(int rows, Candidate* candidate) {
    const int64_t wanted = std::min<int64_t>(
        num_rows_, std::max<int64_t>(rows, kComparedResults / shape_.out_features));
    const int compared = static_cast<int>(wanted / rows * rows);
    for (int row = 0; row < compared; row += rows) {
      if (!MultiplyFrom(row, rows, candidate->algorithm).ok()) return absl::OkStatus();  // refused
    }
    ASSAY_ASSIGN_OR_RETURN(std::vector<uint64_t> hashes, HashesOfResults(compared));
    const int fewer = rows - rows / 8 - 1;
    if (fewer > 0) {
      if (!MultiplyFrom(0, fewer, candidate->algorithm).ok()) return absl::OkStatus();
      ASSAY_ASSIGN_OR_RETURN(const std::vector<uint64_t> of_fewer, HashesOfResults(fewer));
      if (!Agree(of_fewer, hashes)) return absl::OkStatus();
    }
    candidate->hashes = std::move(hashes);
    return absl::OkStatus();
  }

  absl::Status MultiplyFrom(int row, int rows, const cublasLtMatmulAlgo_t& algorithm) const {
    return Multiply(lt_, shape_, algorithm, x_.data() + row * shape_.in_features, weights_[0],
                    bias_.data(), y_.data() + row * row_bytes(), rows, stream_);
  }
  absl::StatusOr<std::vector<uint64_t>> HashesOfResults(int num_rows) const {
    ASSAY_RETURN_IF_ERROR(HashRows({.matrix = y_.data(),
                                    .hashes = hashes_.data(),
                                    .num_rows = num_rows,
                                    .row_bytes = row_bytes()},
                                   stream_));
    std::vector<uint64_t> hashes(static_cast<size_t>(num_rows));
    ASSAY_RETURN_IF_ERROR(hashes_.CopyTo(std::span(hashes), stream_));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream_));
    return hashes;
  }

  // Same results on all rows that both were run on.
  static bool Agree(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b) {
    const size_t size = std::min(a.size(), b.size());
    return size > 0 &&
           std::equal(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(size), b.begin());
  }

  // The results that candidates of the most buckets agree on; the earliest proposal of the largest
  // bucket where there are several. No timing, so that it is the same in every process.
  absl::Status ChooseReference() {
    size_t most = 0;
    for (auto bucket = buckets_.rbegin(); bucket != buckets_.rend(); ++bucket) {
      for (const Candidate& reference : bucket->candidates) {
        size_t num_agreeing = 0;
        for (const Bucket& other : buckets_) {
          num_agreeing += std::any_of(other.candidates.begin(), other.candidates.end(),
                                      [&](const Candidate& candidate) {
                                        return Agree(candidate.hashes, reference.hashes);
                                      });
        }
        if (num_agreeing > most) {
          most = num_agreeing;
          reference_ = reference.hashes;
        }
      }
    }
    if (most == 0) {
      return Unimplemented("cuBLASLt has no kernel for bf16 linears of {} x {}",
                           shape_.out_features, shape_.in_features);
    }
    return absl::OkStatus();
  }

  // Nothing when no candidate agrees: the next larger bucket's choice serves, or rows are cut.
  absl::StatusOr<std::optional<GemmChoice>> ChooseFor(Bucket* bucket) {
    std::optional<GemmChoice> best;
    int num_equal = 0;
    for (const Candidate& candidate : bucket->candidates) {
      if (!Agree(candidate.hashes, reference_)) continue;
      ++num_equal;
      ASSAY_ASSIGN_OR_RETURN(const float microseconds, Time(candidate.algorithm, bucket->max_rows));
      if (best && best->microseconds <= microseconds) continue;
      best = GemmChoice{.max_rows = bucket->max_rows,
                        .algorithm = candidate.algorithm,
                        .microseconds = microseconds};
    }
    if (best) {
      best->num_candidates = static_cast<int>(bucket->candidates.size());
      best->num_equal = num_equal;
    }
    return best;
  }

  absl::StatusOr<float> Time(const cublasLtMatmulAlgo_t& algorithm, int rows) {
    for (int run = -1; run < kTimedRuns; ++run) {
      if (run == 0) ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(start_.get(), stream_));
      ASSAY_RETURN_IF_ERROR(Multiply(lt_, shape_, algorithm, x_.data(),
                                     weights_[next_weight_++ % weights_.size()], bias_.data(),
                                     y_.data(), rows, stream_));
    }
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventRecord(end_.get(), stream_));
    ASSAY_RETURN_IF_CUDA_ERROR(cudaEventSynchronize(end_.get()));
    ASSAY_ASSIGN_OR_RETURN(const float milliseconds, ElapsedMs(start_, end_));
    return milliseconds * 1000 / kTimedRuns;
  }

  const cublasLtHandle_t lt_;
  const GemmShape shape_;
  const int max_rows_;
  const std::span<const __nv_bfloat16* const> weights_;
  const cudaStream_t stream_;
  int num_rows_ = 0;
  size_t next_weight_ = 0;
  std::vector<Bucket> buckets_;
  std::vector<uint64_t> reference_;
  DeviceBuffer<__nv_bfloat16> x_;
  DeviceBuffer<uint8_t> y_;
  DeviceBuffer<__nv_bfloat16> bias_;
  DeviceBuffer<uint64_t> hashes_;
  Event start_;
  Event end_;
};

absl::StatusOr<Gemm> Gemm::Choose(cublasLtHandle_t lt, const GemmShape& shape, int max_rows,
                                  std::span<const __nv_bfloat16* const> weights,
                                  cudaStream_t stream) {
  ASSAY_CHECK(!weights.empty() && max_rows > 0);
  return GemmChooser(lt, shape, max_rows, weights, stream).Choose();
}

absl::Status Gemm::Run(const __nv_bfloat16* x, const __nv_bfloat16* weight,
                       const __nv_bfloat16* bias, void* y, int num_rows,
                       cudaStream_t stream) const {
  const int64_t row_bytes = shape_.out_features * (shape_.float_output ? 4 : 2);
  for (int row = 0; row < num_rows;) {
    const int left = num_rows - row;
    auto choice = std::find_if(choices_.begin(), choices_.end(), [&](const GemmChoice& candidate) {
      return candidate.max_rows >= left;
    });
    if (choice == choices_.end()) --choice;
    const int rows = std::min(left, choice->max_rows);
    ASSAY_RETURN_IF_ERROR(Multiply(lt_, shape_, choice->algorithm, x + row * shape_.in_features,
                                   weight, bias, static_cast<uint8_t*>(y) + row * row_bytes, rows,
                                   stream));
    row += rows;
  }
  return absl::OkStatus();
}

}  // namespace assay::engine::cuda
