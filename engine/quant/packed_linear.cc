#include "engine/quant/packed_linear.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "engine/quant/format/codes.h"

namespace assay::engine {
namespace {

std::span<const uint8_t> AsBytes(const TensorView& tensor) {
  return {reinterpret_cast<const uint8_t*>(tensor.bytes.data()), tensor.bytes.size()};
}

// F32 [out, groups], finite and positive.
absl::StatusOr<std::vector<float>> ReadScales(const Checkpoint& checkpoint, const std::string& name,
                                              std::span<const int64_t> shape) {
  ASSAY_ASSIGN_OR_RETURN(const TensorView tensor, checkpoint.FindTyped(name, DType::kF32, shape));
  std::vector<float> scales(static_cast<size_t>(tensor.num_elements()));
  ASSAY_RETURN_IF_ERROR(ConvertToFloats(tensor, scales));
  for (size_t i = 0; i < scales.size(); ++i) {
    if (!(scales[i] > 0) || !std::isfinite(scales[i])) {
      return InvalidArgument("tensor {}: scale {} is {}; needed: finite and positive", name, i,
                             scales[i]);
    }
  }
  return scales;
}

// U8 exponents + 127 to powers of two.
absl::StatusOr<std::vector<float>> ReadExponents(const Checkpoint& checkpoint,
                                                 const std::string& name,
                                                 std::span<const int64_t> shape) {
  ASSAY_ASSIGN_OR_RETURN(const TensorView tensor, checkpoint.FindTyped(name, DType::kU8, shape));
  std::vector<float> scales;
  scales.reserve(tensor.bytes.size());
  for (const uint8_t byte : AsBytes(tensor)) {
    if (byte == 255) {
      return InvalidArgument("tensor {}: scale {} is E8M0's NaN (255)", name, scales.size());
    }
    scales.push_back(std::ldexp(1.0f, byte - 127));
  }
  return scales;
}

// For each code column the input column.
absl::StatusOr<std::vector<int32_t>> ReadPermutation(const Checkpoint& checkpoint,
                                                     const std::string& name, int64_t in_features) {
  const int64_t shape[] = {in_features};
  ASSAY_ASSIGN_OR_RETURN(const TensorView tensor, checkpoint.FindTyped(name, DType::kI32, shape));
  std::vector<int32_t> permutation(static_cast<size_t>(in_features));
  std::memcpy(permutation.data(), tensor.bytes.data(), tensor.bytes.size());
  std::vector<bool> seen(permutation.size());
  for (const int32_t column : permutation) {
    if (column < 0 || column >= in_features || seen[static_cast<size_t>(column)]) {
      return InvalidArgument("tensor {}: no permutation of {} columns: {} is out of range or twice",
                             name, in_features, column);
    }
    seen[static_cast<size_t>(column)] = true;
  }
  return permutation;
}

// What a code means before it is scaled, by code: two's complement for a symmetric grid.
std::vector<float> CodeValues(const LinearSpec& spec) {
  std::vector<float> values;
  const int num_codes = 1 << spec.bit_width;
  for (int code = 0; code < num_codes; ++code) {
    if (spec.code_type == CodeType::kMxfp4) {
      values.push_back(DecodeE2m1(static_cast<uint8_t>(code)));
    } else {
      const bool negative = spec.symmetric && code >= num_codes / 2;
      values.push_back(static_cast<float>(negative ? code - num_codes : code));
    }
  }
  return values;
}

template <typename T>
std::string BytesOf(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

}  // namespace

int64_t GroupWidth(const LinearSpec& spec, int64_t in_features) {
  if (spec.code_type == CodeType::kMxfp4) return kMxfp4Block;
  if (spec.group_size > 0) return std::min<int64_t>(spec.group_size, in_features);
  return in_features / spec.num_shards;
}

int64_t NumGroups(const LinearSpec& spec, int64_t in_features) {
  const int64_t width = GroupWidth(spec, in_features);
  return (in_features + width - 1) / width;
}

absl::StatusOr<PackedLinear> ReadPackedLinear(const Checkpoint& checkpoint,
                                              const std::string& linear, const LinearSpec& spec,
                                              int64_t out_features, int64_t in_features) {
  const bool mxfp4 = spec.code_type == CodeType::kMxfp4;
  if (mxfp4 && in_features % kMxfp4Block != 0) {
    return InvalidArgument("{}: {} inputs are no multiple of MXFP4's block of {}", linear,
                           in_features, kMxfp4Block);
  }
  if (spec.num_shards < 1 || in_features % spec.num_shards != 0) {
    return InvalidArgument("{}: {} inputs do not divide over {} shards", linear, in_features,
                           spec.num_shards);
  }
  PackedLinear packed;
  packed.row_bytes = PackedBytes(static_cast<size_t>(in_features), spec.bit_width);
  const int64_t code_shape[] = {out_features, static_cast<int64_t>(packed.row_bytes)};
  ASSAY_ASSIGN_OR_RETURN(const TensorView codes,
                         checkpoint.FindTyped(linear + ".qweight", DType::kU8, code_shape));
  packed.codes = AsBytes(codes);
  const int64_t group_shape[] = {out_features, NumGroups(spec, in_features)};
  ASSAY_ASSIGN_OR_RETURN(packed.scales,
                         mxfp4 ? ReadExponents(checkpoint, linear + ".scale", group_shape)
                               : ReadScales(checkpoint, linear + ".scale", group_shape));
  if (!mxfp4 && !spec.symmetric) {
    ASSAY_ASSIGN_OR_RETURN(const TensorView zeros,
                           checkpoint.FindTyped(linear + ".zero", DType::kU8, group_shape));
    packed.zeros = AsBytes(zeros);
    ASSAY_RETURN_IF_ERROR(CheckZeros(zeros.name, packed.zeros, spec.bit_width));
  }
  if (spec.with_permutation) {
    ASSAY_ASSIGN_OR_RETURN(packed.permutation,
                           ReadPermutation(checkpoint, linear + ".perm", in_features));
  }
  return packed;
}

absl::StatusOr<std::vector<float>> DecodeLinearWeight(const Checkpoint& checkpoint,
                                                      const std::string& linear,
                                                      const LinearSpec& spec, int64_t out_features,
                                                      int64_t in_features) {
  if (spec.code_type == CodeType::kNone) {
    const int64_t weight_shape[] = {out_features, in_features};
    return checkpoint.ReadFloats(linear + ".weight", weight_shape);
  }
  ASSAY_ASSIGN_OR_RETURN(const PackedLinear packed,
                         ReadPackedLinear(checkpoint, linear, spec, out_features, in_features));
  const auto columns = static_cast<size_t>(in_features);
  const auto num_groups = static_cast<size_t>(NumGroups(spec, in_features));
  const auto width = static_cast<size_t>(GroupWidth(spec, in_features));
  const std::vector<float> values = CodeValues(spec);
  std::vector<float> weight(static_cast<size_t>(out_features) * columns);
  std::vector<uint8_t> row_codes(columns);
  for (size_t row = 0; row < static_cast<size_t>(out_features); ++row) {
    UnpackCodes(packed.codes.subspan(row * packed.row_bytes, packed.row_bytes), spec.bit_width,
                row_codes);
    float* const out = weight.data() + row * columns;
    for (size_t j = 0; j < columns; ++j) {
      const size_t group = row * num_groups + j / width;
      const float zero = packed.zeros.empty() ? 0.0f : static_cast<float>(packed.zeros[group]);
      const size_t column =
          packed.permutation.empty() ? j : static_cast<size_t>(packed.permutation[j]);
      out[column] = packed.scales[group] * (values[row_codes[j]] - zero);
    }
  }
  return weight;
}

absl::Status CheckZeros(const std::string& tensor, std::span<const uint8_t> zeros, int bit_width) {
  const int max_code = MaxCode(bit_width, /*symmetric=*/false);
  for (size_t i = 0; i < zeros.size(); ++i) {
    if (zeros[i] > max_code) {
      return InvalidArgument("tensor {}: zero point {} is {}, above the largest {}-bit code {}",
                             tensor, i, zeros[i], bit_width, max_code);
    }
  }
  return absl::OkStatus();
}

void AppendLinearTensors(const std::string& linear, const LinearSpec& spec,
                         const LinearCodes& codes, int64_t out_features, int64_t in_features,
                         std::vector<TensorToWrite>* tensors) {
  const auto columns = static_cast<size_t>(in_features);
  const auto rows = static_cast<size_t>(out_features);
  ASSAY_CHECK(codes.codes.size() == rows * columns, "{}", linear);
  const size_t row_bytes = PackedBytes(columns, spec.bit_width);
  std::string packed(rows * row_bytes, '\0');
  const std::span packed_bytes(reinterpret_cast<uint8_t*>(packed.data()), packed.size());
  for (size_t row = 0; row < rows; ++row) {
    PackCodes(std::span(codes.codes).subspan(row * columns, columns), spec.bit_width,
              packed_bytes.subspan(row * row_bytes, row_bytes));
  }
  tensors->push_back({.name = linear + ".qweight",
                      .dtype = DType::kU8,
                      .shape = {out_features, static_cast<int64_t>(row_bytes)},
                      .bytes = std::move(packed)});

  const std::vector<int64_t> group_shape = {out_features, NumGroups(spec, in_features)};
  const bool mxfp4 = spec.code_type == CodeType::kMxfp4;
  tensors->push_back({.name = linear + ".scale",
                      .dtype = mxfp4 ? DType::kU8 : DType::kF32,
                      .shape = group_shape,
                      .bytes = mxfp4 ? BytesOf(codes.exponents) : BytesOf(codes.scales)});
  if (!mxfp4 && !spec.symmetric) {
    tensors->push_back({.name = linear + ".zero",
                        .dtype = DType::kU8,
                        .shape = group_shape,
                        .bytes = BytesOf(codes.zeros)});
  }
  if (spec.with_permutation) {
    tensors->push_back({.name = linear + ".perm",
                        .dtype = DType::kI32,
                        .shape = {in_features},
                        .bytes = BytesOf(codes.permutation)});
  }
}

}  // namespace assay::engine
