// The small products of online transforms, float32, sums in index order: plain loops that g++
// vectorizes over the columns.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/weights/checkpoint.h"

namespace assay::engine {

// out [rows, size] = x [rows, size] * matrix [size, size]. `out` is not x.
void MultiplyRight(const float* x, int rows, const float* matrix, int size, float* out);

// out [size, columns] = matrix^T [size, size] * x [size, columns]. `out` is not x.
void MultiplyLeftTransposed(const float* matrix, int size, const float* x, int columns, float* out);

// An F32 tensor of that shape without NaN and infinities. INVALID_ARGUMENT names the tensor.
absl::StatusOr<std::vector<float>> ReadFiniteFloats(const Checkpoint& checkpoint,
                                                    const std::string& name,
                                                    std::span<const int64_t> shape);

}  // namespace assay::engine
