// The right to be the one writer of a database file: an flock on `PATH.lock`, which the kernel
// takes back when the process dies. The lock file stays and holds the owner's process id; a clean
// release empties it, so the next owner knows whether the last one died.
#pragma once

#include <absl/status/statusor.h>

#include <memory>
#include <string>

namespace assay::storage::sqlite {

class DatabaseLock {
 public:
  // FAILED_PRECONDITION naming the process that holds it; UNAVAILABLE when the lock file cannot be
  // made.
  static absl::StatusOr<std::unique_ptr<DatabaseLock>> Take(const std::string& database_path);
  ~DatabaseLock();
  DatabaseLock(const DatabaseLock&) = delete;
  DatabaseLock& operator=(const DatabaseLock&) = delete;

  bool last_owner_died() const { return last_owner_died_; }

 private:
  DatabaseLock(int fd, bool last_owner_died) : fd_(fd), last_owner_died_(last_owner_died) {}

  const int fd_;
  const bool last_owner_died_;
};

}  // namespace assay::storage::sqlite
