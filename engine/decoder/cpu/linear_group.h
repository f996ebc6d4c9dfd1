// The linears that read one input (q, k, v; gate, up; or one alone), on the CPU.
//
// Weights are decoded to float32 and packed at load. The input goes through each linear's transform
// and quantizer (engine/quant/input_path.h), once for those that share it, and then through the
// product.
//
// Immutable and thread-safe once loaded.
#pragma once

#include <absl/status/statusor.h>

#include <span>
#include <string>
#include <vector>

#include "engine/decoder/cpu/lap_timer.h"
#include "engine/decoder/model_runner.h"
#include "engine/kernels/cpu/aligned_buffer.h"
#include "engine/kernels/cpu/packed_matrix.h"
#include "engine/kernels/cpu/thread_pool.h"
#include "engine/model/linears.h"
#include "engine/quant/description.h"
#include "engine/quant/input_path.h"
#include "engine/weights/checkpoint.h"

namespace assay::engine {

class LinearGroup {
 public:
  LinearGroup() = default;

  // Errors name the tensor, its shape and the expected one.
  static absl::StatusOr<LinearGroup> Load(const Checkpoint& checkpoint,
                                          const QuantDescription& description,
                                          const std::vector<LinearInfo>& infos);

  int size() const { return static_cast<int>(linears_.size()); }
  const std::string& name(int index) const { return linears_[index].name; }
  int in_features() const { return linears_[0].weight.in_features(); }
  const std::vector<float>& bias(int index) const { return linears_[index].bias; }
  int64_t memory_bytes() const;

  // Leaves the bias of a linear to the caller, who wants the output without it first.
  void DeferBias(int index) { linears_[index].adds_bias = false; }

  struct Output {
    float* data = nullptr;  // [rows, stride]
    int64_t stride = 0;
  };

  // outputs: one per linear. `scratch` grows to [rows, in_features] when an input is changed before
  // the product. The products' time goes to times->matmul, the rest stays with the timer.
  void Multiply(const float* x, int rows, std::span<const Output> outputs,
                cpu::AlignedBuffer* scratch, cpu::ThreadPool* pool, LapTimer* timer,
                RunnerTimes* times) const;

 private:
  struct Linear {
    std::string name;
    LinearSpec spec;
    cpu::PackedMatrix weight;
    std::vector<float> bias;  // empty without one
    bool adds_bias = true;
    InputTransform transform;
    bool changes_input = false;
    bool shares_input_path = false;  // with the linear before it
  };

  std::vector<Linear> linears_;
};

}  // namespace assay::engine
