// The header of a safetensors file, checked: 8 bytes of length, JSON, then the tensors' bytes.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/weights/checkpoint.h"

namespace assay::engine {

// As the format's own reader has it.
inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;

struct HeaderEntry {
  std::string name;
  DType dtype = DType::kBF16;
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // from the end of the header
  uint64_t end = 0;
};

// Entries by offset. They tile the `data_size` bytes after the header: no overlap, no hole, nothing
// left over, each aligned to its element in the file. `data_offset` is where those bytes start in
// the file. Errors name `path` and the tensor; DATA_LOSS when the tensors end beyond the data.
absl::StatusOr<std::vector<HeaderEntry>> ParseSafetensorsHeader(std::string_view json,
                                                                uint64_t data_offset,
                                                                uint64_t data_size,
                                                                const std::string& path);

}  // namespace assay::engine
