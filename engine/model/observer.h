// What calibration sees of a forward pass.
#pragma once

#include <span>
#include <string_view>

namespace assay::engine {

// Called on the thread that runs the model, in layer order. Spans are valid during the call.
class ForwardObserver {
 public:
  virtual ~ForwardObserver() = default;

  // The input of a linear, [num_tokens, in_features], before its transform and quantizer.
  // `linear` is the full name. q, k, v share an input, as do gate and up: each is reported.
  virtual void OnLinearInput(std::string_view linear, int num_tokens,
                             std::span<const float> input) {
    (void)linear, (void)num_tokens, (void)input;
  }

  // Keys after k_proj with bias and before RoPE, [num_tokens, kv_heads, head_dim].
  virtual void OnKeysBeforeRope(int layer, int num_tokens, std::span<const float> keys) {
    (void)layer, (void)num_tokens, (void)keys;
  }
};

}  // namespace assay::engine
