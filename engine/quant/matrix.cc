#include "engine/quant/matrix.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"

namespace assay::engine {

void MultiplyRight(const float* x, int rows, const float* matrix, int size, float* out) {
  const auto width = static_cast<size_t>(size);
  for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
    float* const to = out + row * width;
    std::fill_n(to, width, 0.0f);
    for (size_t k = 0; k < width; ++k) {
      const float factor = x[row * width + k];
      const float* const from = matrix + k * width;
      for (size_t j = 0; j < width; ++j) to[j] += factor * from[j];
    }
  }
}

void MultiplyLeftTransposed(const float* matrix, int size, const float* x, int columns,
                            float* out) {
  const auto order = static_cast<size_t>(size);
  const auto width = static_cast<size_t>(columns);
  std::fill_n(out, order * width, 0.0f);
  for (size_t k = 0; k < order; ++k) {
    const float* const from = x + k * width;
    for (size_t i = 0; i < order; ++i) {
      const float factor = matrix[k * order + i];
      float* const to = out + i * width;
      for (size_t j = 0; j < width; ++j) to[j] += factor * from[j];
    }
  }
}

absl::StatusOr<std::vector<float>> ReadFiniteFloats(const Checkpoint& checkpoint,
                                                    const std::string& name,
                                                    std::span<const int64_t> shape) {
  ASSAY_ASSIGN_OR_RETURN(const TensorView tensor, checkpoint.FindTyped(name, DType::kF32, shape));
  std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
  ASSAY_RETURN_IF_ERROR(ConvertToFloats(tensor, values));
  const auto bad = std::ranges::find_if_not(values, [](float x) { return std::isfinite(x); });
  if (bad != values.end()) {
    return InvalidArgument("tensor {}: value {} is {}; needed: finite", name, bad - values.begin(),
                           *bad);
  }
  return values;
}

}  // namespace assay::engine
