// Whole-file reading and crash-safe writing.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace assay {

// The content of `path`. NOT_FOUND when it cannot be opened; INVALID_ARGUMENT when it is larger
// than `max_bytes` (what comes from outside has a limit everywhere).
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes = int64_t{1} << 31);

// The content of a small file that holds a secret (a key, a token). As ReadFile, and
// FAILED_PRECONDITION when everybody on the machine may read it.
absl::StatusOr<std::string> ReadSecretFile(const std::string& path);

// Writes to a temporary name beside `path`, fsyncs, renames, fsyncs the folder: after a crash the
// path holds the old content or the new, never a mixture. UNAVAILABLE (disk full, permissions)
// leaves the old content.
absl::Status WriteFileAtomically(const std::string& path, std::string_view content);

// Creates `path` and its parents; fine when it exists.
absl::Status MakeDirectories(const std::string& path);

// fsync of a folder, so that a rename or a new file in it survives a crash.
absl::Status SyncDirectory(const std::string& path);

// The folder of the running program, where its sibling programs are.
std::string ProgramDirectory();

}  // namespace assay
