#include "engine/decoder/cpu/linear_group.h"

#include <algorithm>
#include <cstring>

#include "base/status.h"
#include "engine/quant/packed_linear.h"

namespace assay::engine {

absl::StatusOr<LinearGroup> LinearGroup::Load(const Checkpoint& checkpoint,
                                              const QuantDescription& description,
                                              const std::vector<LinearInfo>& infos) {
  LinearGroup group;
  for (const LinearInfo& info : infos) {
    Linear linear;
    linear.name = info.name;
    const auto found = description.linears.find(info.name);
    if (found != description.linears.end()) linear.spec = found->second;
    ASSAY_ASSIGN_OR_RETURN(const std::vector<float> weight,
                           DecodeLinearWeight(checkpoint, info.name, linear.spec, info.out_features,
                                              info.in_features));
    linear.weight = cpu::PackedMatrix(weight, info.out_features, info.in_features);
    if (info.has_bias) {
      const int64_t shape[] = {info.out_features};
      ASSAY_ASSIGN_OR_RETURN(linear.bias, checkpoint.ReadFloats(info.name + ".bias", shape));
    }
    ASSAY_ASSIGN_OR_RETURN(linear.transform, InputTransform::Load(checkpoint, info.name,
                                                                  linear.spec, info.in_features));
    linear.changes_input =
        !linear.transform.is_identity() || linear.spec.input_quantizer.code_type != CodeType::kNone;
    if (!group.linears_.empty()) {
      const Linear& before = group.linears_.back();
      linear.shares_input_path =
          SharesInputPath(before.name, before.spec, linear.name, linear.spec);
    }
    group.linears_.push_back(std::move(linear));
  }
  return group;
}

int64_t LinearGroup::memory_bytes() const {
  int64_t bytes = 0;
  for (const Linear& linear : linears_) bytes += linear.weight.memory_bytes();
  return bytes;
}

void LinearGroup::Multiply(const float* x, int rows, std::span<const Output> outputs,
                           cpu::AlignedBuffer* scratch, cpu::ThreadPool* pool, LapTimer* timer,
                           RunnerTimes* times) const {
  ASSAY_CHECK(outputs.size() == linears_.size(), "{} outputs of {} linears", outputs.size(),
              linears_.size());
  const int features = in_features();
  absl::Duration unattributed;
  bool scratch_is_current = false;
  for (size_t i = 0; i < linears_.size(); ++i) {
    const Linear& linear = linears_[i];
    const float* input = x;
    if (linear.changes_input) {
      if (!scratch_is_current || !linear.shares_input_path) {
        scratch->EnsureSize(size_t{1} * rows * features);
        pool->ParallelFor(rows, [&](int row, int) {
          float* changed = scratch->data() + int64_t{row} * features;
          std::memcpy(changed, x + int64_t{row} * features, sizeof(float) * features);
          linear.transform.Apply(changed);
          QuantizeInput(changed, features, linear.spec);
        });
        scratch_is_current = true;
      }
      input = scratch->data();
    }
    timer->Lap(&unattributed);
    const float* bias = linear.bias.empty() || !linear.adds_bias ? nullptr : linear.bias.data();
    linear.weight.Multiply(input, features, rows, bias, outputs[i].data, outputs[i].stride, pool);
    timer->Lap(&times->matmul);
  }
}

}  // namespace assay::engine
