// Which quantization methods a sweep may name, with which bits, and what their defaults are.
//
// The same rules as the engine's ResolveMethod, written a second time because the coordinator has
// no engine in it; tests/unit/coordinator/spec holds the two together.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "storage/stores/records.h"

namespace assay::coordinator {

// What a spec says about a method; what it does not say is empty.
struct MethodRequest {
  std::string method;
  std::string bits;                   // "W-A-KV"
  std::optional<int32_t> group_size;  // -1 is one group a row
  std::optional<bool> symmetric;
  std::optional<bool> pre_bias;
  std::optional<int32_t> virtual_shards;
  std::optional<std::string> calibration_set;
};

// The method with every parameter filled in. INVALID_ARGUMENT names what does not exist or does not
// go together and lists what does; a parameter that the method does not have is an error too,
// because whoever wrote it expects it to matter.
absl::StatusOr<storage::MethodRecord> ResolveMethod(const MethodRequest& request);

// The unquantized model.
storage::MethodRecord BaselineMethod();

// The methods of this version, sorted.
const std::vector<std::string>& KnownMethods();

}  // namespace assay::coordinator
