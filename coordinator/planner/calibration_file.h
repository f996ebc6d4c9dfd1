// Calibration sets: NAME.jsonl under a calibration root, records {"question", "response"} or
// {"text"}; other fields are ignored.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace assay::coordinator {

struct CalibrationSet {
  std::string jsonl;  // the records as a worker reads them: only the fields that matter
  std::string hash;   // SHA-256 over `jsonl`: part of artifact keys
  int num_records = 0;
};

inline constexpr int64_t kMaxCalibrationBytes = int64_t{64} << 20;

// INVALID_ARGUMENT says "file:line: ...".
absl::StatusOr<CalibrationSet> ParseCalibrationJsonl(std::string_view jsonl,
                                                     const std::string& file_name);

// NOT_FOUND lists the roots and the sets that they have.
absl::StatusOr<CalibrationSet> LoadCalibrationSet(const std::vector<std::string>& roots,
                                                  const std::string& name);

}  // namespace assay::coordinator
