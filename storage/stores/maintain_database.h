// Copies of a database and its compaction, on the file: for a person who looks after it.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <string>

namespace assay::storage {

// Copies the database at `path`, as it is now, into a new file, durable when this returns. Works
// while a coordinator writes: the copy is of one moment, read through a read-only connection of its
// own, so that no commit waits for it; the WAL cannot be emptied meanwhile. `go_on` is asked about
// every two megabytes. Returns the bytes of the copy. NOT_FOUND, INVALID_ARGUMENT (no Assay
// database), ALREADY_EXISTS, UNAVAILABLE (disk full), CANCELLED when `go_on` said no. Thread-safe.
absl::StatusOr<int64_t> BackupDatabase(const std::string& path, const std::string& target_path,
                                       const std::function<bool()>& go_on);

struct VacuumResult {
  int64_t bytes_before = 0;
  int64_t bytes_after = 0;
};

// Writes the database compacted beside itself and puts that in its place. Needs as much free disk
// as the database is large. FAILED_PRECONDITION while a coordinator owns it; UNAVAILABLE, with
// nothing changed, while a reader has it open; DATA_LOSS when it is damaged. A crash leaves the old
// file or the new one.
absl::StatusOr<VacuumResult> VacuumDatabase(const std::string& path);

}  // namespace assay::storage
