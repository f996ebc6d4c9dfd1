#include "tests/kernels/kv_problem.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <ostream>
#include <utility>

#include "base/status.h"
#include "engine/kernels/cpu/kernel_table.h"
#include "engine/quant/matrix.h"
#include "engine/quant/uniform.h"

namespace assay::engine::cuda {
namespace {

using Position = CacheSpec::Position;
using Transform = CacheSpec::Transform;

constexpr float kNormEps = 1e-6f;

float RoundToBf16(float x) { return FromBf16(ToBf16(x)); }

template <typename T>
absl::Status UploadTo(const std::vector<T>& values, DeviceBuffer<T>* buffer) {
  ASSAY_ASSIGN_OR_RETURN(*buffer, DeviceBuffer<T>::Allocate(static_cast<int64_t>(values.size())));
  return buffer->CopyFrom(values, nullptr);
}

int MaxUnsigned(const CacheSpec& spec) { return (1 << spec.bit_width) - 1; }
int SymmetricZero(const CacheSpec& spec) { return spec.symmetric ? 1 << (spec.bit_width - 1) : 0; }

}  // namespace

float FromBf16(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

uint16_t ToBf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

std::ostream& operator<<(std::ostream& out, const KvCase& kv_case) { return out << kv_case.name; }

KvCase Bf16Case() { return {.name = "Bf16"}; }

KvCase PerTokenCase(int bits, bool hadamard, float clip_ratio) {
  KvCase result;
  result.name = fmt::format("{}Bit{}", bits, hadamard ? "Hadamard" : "");
  result.key = {.code_type = CodeType::kUniform, .bit_width = bits, .clip_ratio = clip_ratio};
  if (hadamard) result.key.transform = CacheSpec::Transform::kHadamard;
  result.value = {.code_type = CodeType::kUniform,
                  .bit_width = bits,
                  .clip_ratio = clip_ratio,
                  .position = Position::kAfterProjection};
  return result;
}

KvCase StaticKeyCase(int bits, Position position) {
  KvCase result = PerTokenCase(bits, false, 1);
  result.name = fmt::format("{}BitStaticKeys{}", bits,
                            position == Position::kBeforeBias ? "BeforeBias" : "BeforeRope");
  result.key.granularity = CacheSpec::Granularity::kPerChannelStatic;
  result.key.position = position;
  return result;
}

KvProblem::KvProblem(const KvCase& kv_case, std::vector<int> context_lens, uint32_t seed)
    : case_(kv_case), context_lens_(std::move(context_lens)) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  int longest = 0;
  for (int sequence = 0; sequence < num_sequences(); ++sequence) {
    first_rows_.push_back(num_rows());
    for (int position = 0; position < context_len(sequence); ++position) {
      positions_.push_back(position);
      sequences_.push_back(sequence);
    }
    last_positions_.push_back(context_len(sequence) - 1);
    longest = std::max(longest, context_len(sequence));
  }
  // Every sequence has blocks of its own, in no order.
  block_table_stride_ = (longest + kKvPageTokens - 1) / kKvPageTokens;
  num_blocks_ = block_table_stride_ * num_sequences() + 3;
  block_tables_.resize(Index(num_blocks_));
  std::iota(block_tables_.begin(), block_tables_.end(), 0);
  std::shuffle(block_tables_.begin(), block_tables_.end(), random);

  const int slots = case_.num_heads + 2 * case_.num_kv_heads;
  // Keys have outlying channels, as models do.
  std::vector<float> deviation(Index(slots * case_.head_dim), 1.0f);
  for (int i = 0; i < slots; ++i) deviation[random() % deviation.size()] = 6;
  qkv_.reserve(positions_.size() * deviation.size());
  for (int row = 0; row < num_rows(); ++row) {
    for (const float scale : deviation) qkv_.push_back(ToBf16(scale * normal(random)));
  }
  const bool has_bias = case_.key.position == Position::kBeforeBias;
  for (int i = 0; i < case_.num_kv_heads * case_.head_dim; ++i) {
    key_bias_.push_back(has_bias ? RoundToBf16((i % 17 == 0 ? 30.0f : 1.0f) * normal(random)) : 0);
    const float spread = deviation[Index(case_.num_heads * case_.head_dim + i)];
    const GridParams grid =
        ParamsOfRange(-2.5f * spread, 2.0f * spread, {.bit_width = case_.key.bit_width});
    key_scale_.push_back(grid.scale);
    key_zero_.push_back(static_cast<float>(grid.zero));
  }
  for (int i = 0; i < case_.head_dim; ++i) {
    q_norm_.push_back(1 + 0.2f * normal(random));
    k_norm_.push_back(1 + 0.2f * normal(random));
  }
  for (int i = 0; i < case_.head_dim * case_.head_dim; ++i) {
    for (auto* matrix : {&key_matrix_, &query_matrix_, &value_matrix_}) {
      matrix->push_back(0.1f * normal(random));
    }
  }
  const int half = case_.head_dim / 2;
  for (int position = 0; position < std::max(longest, kKvPageTokens); ++position) {
    for (int i = 0; i < half; ++i) {
      const double angle = position * std::pow(10000.0, -2.0 * i / case_.head_dim);
      cosines_.push_back(static_cast<float>(std::cos(angle)));
      sines_.push_back(static_cast<float>(std::sin(angle)));
    }
  }
}

absl::Status KvProblem::Upload() {
  ASSAY_ASSIGN_OR_RETURN(const KvPageLayout layout,
                         MakeKvPageLayout(case_.key, case_.value, case_.head_dim));
  cache_ = {.num_blocks = num_blocks_,
            .num_layers = kLayers,
            .num_kv_heads = case_.num_kv_heads,
            .layout = layout};
  ASSAY_ASSIGN_OR_RETURN(cache_device_, DeviceBuffer<uint8_t>::Allocate(cache_.bytes()));
  // NaNs wherever nobody writes.
  ASSAY_RETURN_IF_CUDA_ERROR(
      cudaMemset(cache_device_.data(), 0xFF, static_cast<size_t>(cache_.bytes())));
  cache_.base = cache_device_.data();
  ASSAY_RETURN_IF_ERROR(UploadTo(qkv_, &qkv_device_));
  ASSAY_RETURN_IF_ERROR(UploadTo(positions_, &positions_device_));
  ASSAY_RETURN_IF_ERROR(UploadTo(sequences_, &sequences_device_));
  ASSAY_RETURN_IF_ERROR(UploadTo(last_positions_, &last_positions_device_));
  ASSAY_RETURN_IF_ERROR(UploadTo(block_tables_, &block_tables_device_));
  ASSAY_RETURN_IF_ERROR(UploadTo(key_bias_, &key_bias_device_));
  ASSAY_RETURN_IF_ERROR(UploadTo(key_scale_, &key_scale_device_));
  ASSAY_RETURN_IF_ERROR(UploadTo(key_zero_, &key_zero_device_));
  ASSAY_RETURN_IF_ERROR(UploadTo(q_norm_, &q_norm_device_));
  ASSAY_RETURN_IF_ERROR(UploadTo(k_norm_, &k_norm_device_));
  ASSAY_RETURN_IF_ERROR(UploadTo(key_matrix_, &key_matrix_device_));
  ASSAY_RETURN_IF_ERROR(UploadTo(query_matrix_, &query_matrix_device_));
  ASSAY_RETURN_IF_ERROR(UploadTo(value_matrix_, &value_matrix_device_));
  ASSAY_RETURN_IF_ERROR(UploadTo(cosines_, &cosines_device_));
  ASSAY_RETURN_IF_ERROR(UploadTo(sines_, &sines_device_));
  const int64_t q_size = case_.num_heads * case_.head_dim;
  ASSAY_ASSIGN_OR_RETURN(query_device_, DeviceBuffer<__nv_bfloat16>::Allocate(num_rows() * q_size));
  ASSAY_ASSIGN_OR_RETURN(last_query_device_,
                         DeviceBuffer<__nv_bfloat16>::Allocate(num_sequences() * q_size));
  return CudaStatus(cudaDeviceSynchronize(), "upload");
}

absl::Status KvProblem::Write() {
  const int64_t q_size = case_.num_heads * case_.head_dim;
  KvWriteArgs args = {.rows = AllRows(),
                      .num_heads = case_.num_heads,
                      .cache = cache_,
                      .layer = kLayer,
                      .rope = {cosines_device_.data(), sines_device_.data()},
                      .qkv = reinterpret_cast<const __nv_bfloat16*>(qkv_device_.data()),
                      .qkv_stride = (case_.num_heads + 2 * case_.num_kv_heads) * case_.head_dim,
                      .query = query_device_.data(),
                      .query_stride = q_size};
  args.weights.k_bias = key_bias_device_.data();
  if (case_.qk_norm) {
    args.weights.q_norm = q_norm_device_.data();
    args.weights.k_norm = k_norm_device_.data();
    args.weights.norm_eps = kNormEps;
  }
  args.weights.key = {.spec = case_.key,
                      .clip_max = case_.key.clip_ratio,
                      .clip_min = case_.key.clip_ratio,
                      .scale = key_scale_device_.data(),
                      .zero = key_zero_device_.data(),
                      .matrix = key_matrix_device_.data(),
                      .query_matrix = query_matrix_device_.data()};
  args.weights.value = {.spec = case_.value,
                        .clip_max = case_.value.clip_ratio,
                        .clip_min = case_.value.clip_ratio,
                        .matrix = value_matrix_device_.data()};
  ASSAY_RETURN_IF_ERROR(WriteKv(args, nullptr));
  for (int sequence = 0; sequence < num_sequences(); ++sequence) {
    const int row = RowOf(sequence, context_len(sequence) - 1);
    ASSAY_RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(
        last_query_device_.data() + sequence * q_size, query_device_.data() + row * q_size,
        static_cast<size_t>(q_size) * 2, cudaMemcpyDeviceToDevice, nullptr));
  }
  return CudaStatus(cudaDeviceSynchronize(), "WriteKv");
}

StepRows KvProblem::AllRows() const {
  return {.num_rows = num_rows(),
          .positions = positions_device_.data(),
          .sequences = sequences_device_.data(),
          .block_tables = block_tables_device_.data(),
          .block_table_stride = block_table_stride_};
}

StepRows KvProblem::LastRows(int first, int count) const {
  return {.num_rows = count,
          .positions = last_positions_device_.data() + first,
          .block_tables = block_tables_device_.data() + first * block_table_stride_,
          .block_table_stride = block_table_stride_};
}

AttentionArgs KvProblem::Attention(const StepRows& rows, const __nv_bfloat16* query,
                                   __nv_bfloat16* output) const {
  const int64_t stride = case_.num_heads * case_.head_dim;
  return {
      .rows = rows,
      .num_heads = case_.num_heads,
      .cache = cache_,
      .layer = kLayer,
      .key_scale = key_scale_device_.data(),
      .key_zero = key_zero_device_.data(),
      .key_bias = case_.key.position == Position::kBeforeBias ? key_bias_device_.data() : nullptr,
      .rope = {cosines_device_.data(), sines_device_.data()},
      .query = query,
      .query_stride = stride,
      .output = output,
      .output_stride = stride};
}

absl::StatusOr<std::vector<uint8_t>> KvProblem::DownloadCache() const {
  std::vector<uint8_t> bytes(static_cast<size_t>(cache_.bytes()));
  ASSAY_RETURN_IF_ERROR(cache_device_.CopyTo(bytes, nullptr));
  return bytes;
}

absl::StatusOr<std::vector<float>> KvProblem::DownloadQueries() const {
  std::vector<__nv_bfloat16> values(static_cast<size_t>(query_device_.size()));
  ASSAY_RETURN_IF_ERROR(query_device_.CopyTo(values, nullptr));
  std::vector<float> result;
  for (const __nv_bfloat16 value : values) result.push_back(__bfloat162float(value));
  return result;
}

const uint8_t* KvProblem::Page(const std::vector<uint8_t>& cache, int sequence, int kv_head,
                               int position) const {
  const int block = block_tables_[Index(sequence * block_table_stride_ + position / kKvPageTokens)];
  return cache.data() + cache_.PageOffset(kLayer, block, kv_head);
}

std::vector<float> KvProblem::Projection(int row, int slot) const {
  const int slots = case_.num_heads + 2 * case_.num_kv_heads;
  std::vector<float> x;
  for (int d = 0; d < case_.head_dim; ++d) {
    x.push_back(FromBf16(qkv_[Index((row * slots + slot) * case_.head_dim + d)]));
  }
  return x;
}

void KvProblem::Normalize(std::vector<float>* x, const std::vector<float>& weight) const {
  if (!case_.qk_norm) return;
  cpu::Kernels().rms_norm(x->data(), weight.data(), kNormEps, case_.head_dim, x->data());
  for (float& value : *x) value = RoundToBf16(value);
}

void KvProblem::Multiply(std::vector<float>* x, const std::vector<float>& matrix) {
  std::vector<float> product(x->size());
  MultiplyRight(x->data(), 1, matrix.data(), static_cast<int>(x->size()), product.data());
  *x = std::move(product);
}

void KvProblem::Rotate(std::vector<float>* x, int position) const {
  const int half = case_.head_dim / 2;
  for (int i = 0; i < half; ++i) {
    const float cosine = cosines_[Index(position * half + i)];
    const float sine = sines_[Index(position * half + i)];
    float& low = (*x)[Index(i)];
    float& high = (*x)[Index(i + half)];
    const float a = low;
    const float b = high;
    low = RoundToBf16(a * cosine - b * sine);
    high = RoundToBf16(b * cosine + a * sine);
  }
}

std::vector<double> KvProblem::DecodeStaticKey(const std::vector<int>& codes, int position,
                                               int kv_head, bool rounds) const {
  const auto rounded = [&](double x) {
    return rounds ? double{RoundToBf16(static_cast<float>(x))} : x;
  };
  std::vector<double> x;
  for (size_t d = 0; d < codes.size(); ++d) {
    const size_t channel = Index(kv_head * case_.head_dim) + d;
    const double value = double{key_scale_[channel]} * (codes[d] - double{key_zero_[channel]});
    const bool has_bias = case_.key.position == Position::kBeforeBias;
    x.push_back(has_bias ? rounded(value + key_bias_[channel]) : value);
  }
  const size_t half = x.size() / 2;
  for (size_t i = 0; i < half; ++i) {
    const double cosine = cosines_[Index(position) * half + i];
    const double sine = sines_[Index(position) * half + i];
    const double low = x[i];
    const double high = x[i + half];
    x[i] = rounded(low * cosine - high * sine);
    x[i + half] = rounded(high * cosine + low * sine);
  }
  return x;
}

std::vector<float> KvProblem::ExpectedQuery(int row, int head) const {
  std::vector<float> query = Projection(row, head);
  Normalize(&query, q_norm_);
  Rotate(&query, positions_[Index(row)]);
  if (case_.key.transform == Transform::kHadamard) HadamardTransform(query);
  if (case_.key.transform == Transform::kMatrix) Multiply(&query, query_matrix_);
  return query;
}

namespace {

// Codes of a row by its own range, and what they decode to with the stored grid.
ExpectedRow RowOfOwnGrid(const std::vector<float>& x, const CacheSpec& spec) {
  const GridParams params = ChooseParams(x, {.bit_width = spec.bit_width,
                                             .symmetric = spec.symmetric,
                                             .clip_max = spec.clip_ratio,
                                             .clip_min = spec.clip_ratio});
  ExpectedRow row;
  const int offset = SymmetricZero(spec);
  row.grid =
      PackGrid(std::bit_cast<uint32_t>(params.scale), static_cast<uint32_t>(params.zero + offset));
  const auto stored = double{std::bit_cast<float>(row.grid & 0xFFFFFF00u)};
  for (const float value : x) {
    const int code = Encode(value, params, spec.bit_width, spec.symmetric);
    row.codes.push_back(code + offset);
    row.values.push_back(stored * (code - params.zero));
  }
  return row;
}

// What pages have no codes for goes through its grid and is kept in bf16.
ExpectedRow RowOfBf16(std::vector<float> x, const CacheSpec& spec) {
  if (spec.code_type == CodeType::kMxfp4) RoundToMxfp4(x, spec.ties);
  if (spec.code_type == CodeType::kUniform) {
    const auto group = static_cast<size_t>(spec.group_size);
    for (size_t at = 0; at < x.size(); at += group) {
      RoundToOwnGrid({x.data() + at, group}, {.bit_width = spec.bit_width,
                                              .symmetric = spec.symmetric,
                                              .clip_max = spec.clip_ratio,
                                              .clip_min = spec.clip_ratio});
    }
  }
  ExpectedRow row;
  for (const float value : x) row.values.push_back(double{RoundToBf16(value)});
  return row;
}

}  // namespace

ExpectedRow KvProblem::ExpectedKey(int sequence, int position, int kv_head) const {
  std::vector<float> key = Projection(RowOf(sequence, position), case_.num_heads + kv_head);
  const size_t channel = Index(kv_head * case_.head_dim);
  Normalize(&key, k_norm_);
  if (cache_.layout.key.params == KvParams::kPerChannel) {
    ExpectedRow row;
    for (size_t d = 0; d < key.size(); ++d) {
      const GridParams params = {key_scale_[channel + d], static_cast<int>(key_zero_[channel + d])};
      row.codes.push_back(Encode(key[d], params, case_.key.bit_width, case_.key.symmetric));
    }
    row.values = DecodeStaticKey(row.codes, position, kv_head, false);
    return row;
  }
  Rotate(&key, position);
  if (case_.key.transform == Transform::kHadamard) HadamardTransform(key);
  if (case_.key.transform == Transform::kMatrix) Multiply(&key, key_matrix_);
  return cache_.layout.key.codes == KvCodes::kBf16 ? RowOfBf16(key, case_.key)
                                                   : RowOfOwnGrid(key, case_.key);
}

ExpectedRow KvProblem::ExpectedValue(int sequence, int position, int kv_head) const {
  std::vector<float> value =
      Projection(RowOf(sequence, position), case_.num_heads + case_.num_kv_heads + kv_head);
  if (case_.value.transform == Transform::kMatrix) Multiply(&value, value_matrix_);
  return cache_.layout.value.codes == KvCodes::kBf16 ? RowOfBf16(value, case_.value)
                                                     : RowOfOwnGrid(value, case_.value);
}

// Where the tolerance comes from, with u = 2^-8 the step of bf16 and 2^-11 that of FP16, and the
// weights p of the softmax:
//   - the output is rounded to bf16: u / 2 of it;
//   - a weight is rounded to bf16 (bf16 pages) or FP16, and its value to FP16 (prefill of codes):
//     at most u / 2 of |v|, weighted;
//   - integer values enter before their zero point is taken off: sums of up to the row's range lose
//     what is below 2^-18 of it, weighted;
//   - a score that is off by e changes its weight by a factor of e^e: 2 e of |v|, weighted. Scores
//     are sums of 128 products in float32, whose bits below 2^-22 of the largest are lost; static
//     keys before RoPE multiply rounded cosines with codes (2^-11 of |q| s c, and of the constant
//     part); prefill rounds keys to FP16, and a key that is rounded to bf16 may round the other
//     way.
KvProblem::Expected KvProblem::ExpectedAttention(int sequence, int position, int head,
                                                 bool rounds_static_keys,
                                                 const std::vector<float>& device_queries) const {
  const int dim = case_.head_dim;
  const int kv_head = head / case_.group();
  const int length = position + 1;
  const float* const query =
      &device_queries[Index((RowOf(sequence, position) * case_.num_heads + head) * dim)];
  for (auto& rows : decoded_) rows.resize(Index(num_rows() * case_.num_kv_heads));
  const bool is_static = cache_.layout.key.params == KvParams::kPerChannel;
  const auto cached = [&](int which, int t) -> const std::vector<double>& {
    std::vector<double>& row =
        decoded_[which][Index(RowOf(sequence, t) * case_.num_kv_heads + kv_head)];
    if (!row.empty()) return row;
    if (which == 2) return row = ExpectedValue(sequence, t, kv_head).values;
    const ExpectedRow key = ExpectedKey(sequence, t, kv_head);
    return row = which == 0 ? key.values : DecodeStaticKey(key.codes, t, kv_head, true);
  };
  const int key_kind = is_static && rounds_static_keys ? 1 : 0;
  const size_t channel = Index(kv_head * dim);
  const double factor = 1 / std::sqrt(static_cast<double>(dim));
  std::vector<double> weights;
  double max = -INFINITY;
  double score_error = 0;
  for (int t = 0; t < length; ++t) {
    const std::vector<double>& key = cached(key_kind, t);
    double score = 0;
    double error = 0;
    for (int d = 0; d < dim; ++d) {
      const size_t i = Index(d);
      score += query[i] * key[i];
      // Codes enter before their zero point is taken off: up to all of the grid's range.
      const double range = std::abs(key[i]) + 8;
      error += std::abs(query[i]) * range * 0x1p-22;
      error += std::abs(query[i] * key[i]) * (is_static ? 0x1p-8 : 0x1p-12);
      if (is_static) {
        const double code_range = double{key_scale_[channel + i]} * MaxUnsigned(case_.key);
        error += std::abs(query[i]) * (code_range + std::abs(key_bias_[channel + i])) * 0x1p-11;
      }
    }
    weights.push_back(score * factor);
    score_error = std::max(score_error, error * factor);
    max = std::max(max, score * factor);
  }
  double sum = 0;
  for (double& weight : weights) sum += weight = std::exp(weight - max);
  Expected expected;
  expected.output.assign(Index(dim), 0);
  std::vector<double> magnitude(Index(dim), 0);
  double range = 0;
  for (int t = 0; t < length; ++t) {
    const std::vector<double>& value = cached(2, t);
    const auto [least, largest] = std::ranges::minmax(value);
    range += weights[Index(t)] / sum * (largest - least);
    for (size_t d = 0; d < value.size(); ++d) {
      expected.output[d] += weights[Index(t)] / sum * value[d];
      magnitude[d] += weights[Index(t)] / sum * std::abs(value[d]);
    }
  }
  for (size_t d = 0; d < magnitude.size(); ++d) {
    expected.tolerance.push_back(0x1p-9 * std::abs(expected.output[d]) +
                                 (0x1p-8 + 2 * score_error) * magnitude[d] + 0x1p-18 * range);
  }
  return expected;
}

}  // namespace assay::engine::cuda
