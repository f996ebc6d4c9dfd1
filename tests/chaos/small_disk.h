// Disks that are full: a small one of its own under a folder, or a limit on the size of a process's
// files. A full small disk fails as a real one (ENOSPC, anywhere in a write) and needs root; a file
// size limit (EFBIG at a chosen size) needs nothing.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

namespace assay::chaos {

// Gives this process and its later children mounts of their own, which nobody else sees and which
// vanish with them. Call it once, before threads are started. UNAVAILABLE where it may not.
absl::Status OwnMounts();

// A tmpfs mounted on a folder. Needs OwnMounts. Not thread-safe.
class SmallDisk {
 public:
  // Makes the folder too.
  static absl::StatusOr<std::unique_ptr<SmallDisk>> Mount(const std::string& directory,
                                                          int64_t num_bytes);
  ~SmallDisk();
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  // Not a byte is left.
  absl::Status Fill();
  void Free();

 private:
  explicit SmallDisk(std::string directory) : directory_(std::move(directory)) {}
  const std::string directory_;
};

// No file of the process, nor of those children that it has now, may grow beyond `num_bytes`;
// what is larger stays. -1 lifts the limit.
absl::Status LimitFileSize(pid_t process, int64_t num_bytes);

}  // namespace assay::chaos
