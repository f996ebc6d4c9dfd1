#include "engine/kernels/cpu/packed_matrix.h"

#include <algorithm>

#include "base/status.h"
#include "engine/kernels/cpu/kernel_table.h"

namespace assay::engine::cpu {

PackedMatrix::PackedMatrix(std::span<const float> weight, int out_features, int in_features)
    : out_features_(out_features),
      in_features_(in_features),
      num_panels_((out_features + kPanelColumns - 1) / kPanelColumns),
      panels_(size_t{1} * num_panels_ * in_features * kPanelColumns) {
  ASSAY_CHECK(weight.size() == size_t{1} * out_features * in_features, "{} floats for [{}, {}]",
              weight.size(), out_features, in_features);
  for (int row = 0; row < out_features; ++row) {
    float* column = panels_.data() + int64_t{row / kPanelColumns} * in_features * kPanelColumns +
                    row % kPanelColumns;
    const float* source = weight.data() + int64_t{row} * in_features;
    for (int k = 0; k < in_features; ++k) column[int64_t{k} * kPanelColumns] = source[k];
  }
}

void PackedMatrix::Multiply(const float* x, int64_t x_stride, int rows, const float* bias, float* y,
                            int64_t y_stride, ThreadPool* pool) const {
  if (rows == 0) return;
  // A few tasks per thread even out what other processes take from a core.
  const int num_tasks =
      pool->num_threads() == 1 ? 1 : std::min(num_panels_, 4 * pool->num_threads());
  pool->ParallelFor(num_tasks, [&](int task, int) {
    GemmArgs args;
    args.x = x;
    args.x_stride = x_stride;
    args.panels = panels_.data();
    args.bias = bias;
    args.y = y;
    args.y_stride = y_stride;
    args.rows = rows;
    args.depth = in_features_;
    args.columns = out_features_;
    args.first_panel = static_cast<int>(int64_t{num_panels_} * task / num_tasks);
    args.last_panel = static_cast<int>(int64_t{num_panels_} * (task + 1) / num_tasks);
    Kernels().gemm(args);
  });
}

}  // namespace assay::engine::cpu
