// A weight as the matrix product wants it: panels of 32 output features, packed once at load.
//
// Multiply computes y = x W^T + bias so that a row of y depends on its row of x alone: not on the
// number of rows, the row's position or the number of threads (kernel_table.h). A BLAS promises
// none of this: OpenBLAS picks other kernels, with other orders of summation, for other shapes.
//
// Immutable and thread-safe once packed.
#pragma once

#include <cstdint>
#include <span>

#include "engine/kernels/cpu/aligned_buffer.h"
#include "engine/kernels/cpu/thread_pool.h"

namespace assay::engine::cpu {

class PackedMatrix {
 public:
  PackedMatrix() = default;

  // weight: [out_features, in_features].
  PackedMatrix(std::span<const float> weight, int out_features, int in_features);

  int out_features() const { return out_features_; }
  int in_features() const { return in_features_; }
  int64_t memory_bytes() const { return static_cast<int64_t>(panels_.size() * sizeof(float)); }

  // x: [rows, x_stride]; y: [rows, y_stride]; strides in floats, at least the features. `bias` is
  // [out_features] or null. x and y do not overlap.
  void Multiply(const float* x, int64_t x_stride, int rows, const float* bias, float* y,
                int64_t y_stride, ThreadPool* pool) const;

 private:
  int out_features_ = 0;
  int in_features_ = 0;
  int num_panels_ = 0;
  AlignedBuffer panels_;  // [num_panels, in_features, 32], zero beyond out_features
};

}  // namespace assay::engine::cpu
