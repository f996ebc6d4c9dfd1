// Whether a database is sound: SQLite's own checks, and what must hold between our rows.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace assay::storage {

struct DatabaseFinding {
  std::string check;    // "sample-text"
  std::string meaning;  // "a sample has no text": the sentence that is true of what was found
  int64_t num_rows = 0;
  std::string example;  // of one of them: "sample 17"
};

struct DatabaseCheck {
  std::vector<DatabaseFinding> findings;  // empty: the database is sound
  int32_t num_checks = 0;
  int64_t num_samples = 0;
};

// Reads the file through a read-only connection, one state of it, also while a coordinator writes.
// `quick` leaves out what reads every index and every text. NOT_FOUND; INVALID_ARGUMENT when it is
// no Assay database or of another schema; DATA_LOSS when it is too damaged to be read.
absl::StatusOr<DatabaseCheck> CheckDatabase(const std::string& path, bool quick);

}  // namespace assay::storage
