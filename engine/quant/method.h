// The rules of methods: what ResolveMethod checks, and the bit widths that a method works with.
#pragma once

#include <absl/status/statusor.h>

#include <string>

namespace assay::engine {

inline constexpr int kUnquantizedBits = 16;

struct BitWidths {
  int weight = kUnquantizedBits;
  int activation = kUnquantizedBits;
  int kv = kUnquantizedBits;
};

// "4-16-16". INVALID_ARGUMENT quotes what is not of that form.
absl::StatusOr<BitWidths> ParseBits(const std::string& bits);

// A number above 0 and at most 1. INVALID_ARGUMENT names `parameter`.
absl::StatusOr<float> ParseClipRatio(const std::string& parameter, const std::string& text);

}  // namespace assay::engine
