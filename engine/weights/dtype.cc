#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "engine/weights/checkpoint.h"

namespace assay::engine {
namespace {

float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = half >> 10 & 0x1f;
  const uint32_t mantissa = half & 0x3ff;
  if (exponent == 0) {  // zero and denormals: mantissa * 2^-24
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t float_exponent = exponent == 0x1f ? 0xff : exponent + 127 - 15;
  return std::bit_cast<float>(sign | float_exponent << 23 | mantissa << 13);
}

float BFloat16ToFloat(uint16_t half) {
  return std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
}

template <float (*kConvert)(uint16_t)>
void ConvertHalves(std::span<const std::byte> bytes, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t half;
    std::memcpy(&half, bytes.data() + 2 * i, sizeof half);
    out[i] = kConvert(half);
  }
}

}  // namespace

int SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kBool:
    case DType::kU8:
    case DType::kI8:
      return 1;
    case DType::kI16:
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kI32:
    case DType::kF32:
      return 4;
    case DType::kI64:
    case DType::kF64:
      return 8;
  }
  return 1;
}

std::string_view ToString(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return "BOOL";
    case DType::kU8:
      return "U8";
    case DType::kI8:
      return "I8";
    case DType::kI16:
      return "I16";
    case DType::kI32:
      return "I32";
    case DType::kI64:
      return "I64";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
    case DType::kF32:
      return "F32";
    case DType::kF64:
      return "F64";
  }
  return "?";
}

int64_t TensorView::num_elements() const {
  int64_t product = 1;
  for (const int64_t size : shape) product *= size;
  return product;
}

std::string ShapeString(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

absl::Status ConvertToFloats(const TensorView& tensor, std::span<float> out) {
  ASSAY_CHECK(std::cmp_equal(out.size(), tensor.num_elements()), "{}", tensor.name);
  switch (tensor.dtype) {
    case DType::kF32:
      if (!out.empty()) std::memcpy(out.data(), tensor.bytes.data(), out.size_bytes());
      return absl::OkStatus();
    case DType::kBF16:
      ConvertHalves<BFloat16ToFloat>(tensor.bytes, out);
      return absl::OkStatus();
    case DType::kF16:
      ConvertHalves<HalfToFloat>(tensor.bytes, out);
      return absl::OkStatus();
    default:
      return InvalidArgument("tensor {}: dtype {}, where F32, BF16 or F16 is needed", tensor.name,
                             ToString(tensor.dtype));
  }
}

}  // namespace assay::engine
