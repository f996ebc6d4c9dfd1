#include "storage/sqlite/database_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/status.h"

namespace assay::storage::sqlite {
namespace {

std::string ReadOwner(int fd) {
  char text[32] = {};
  const ssize_t size = pread(fd, text, sizeof(text) - 1, 0);
  std::string owner(text, size > 0 ? static_cast<size_t>(size) : 0);
  while (!owner.empty() && owner.back() == '\n') owner.pop_back();
  return owner;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DatabaseLock>> DatabaseLock::Take(const std::string& database_path) {
  const std::string path = database_path + ".lock";
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) {
    return Unavailable("{}: cannot be made ({}); check that its folder exists and is writable",
                       path, strerror(errno));
  }
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    const std::string owner = ReadOwner(fd);
    close(fd);
    if (error != EWOULDBLOCK) return Unavailable("{}: flock failed: {}", path, strerror(error));
    return FailedPrecondition(
        "{}: in use by process {}; one coordinator owns a database: stop that one, or use another "
        "data folder",
        database_path, owner.empty() ? "of unknown id" : owner);
  }
  const bool last_owner_died = !ReadOwner(fd).empty();
  const std::string self = std::to_string(getpid()) + "\n";
  if (ftruncate(fd, 0) != 0 || pwrite(fd, self.data(), self.size(), 0) < 0) {
    const int error = errno;
    close(fd);
    return Unavailable("{}: cannot be written: {}", path, strerror(error));
  }
  return std::unique_ptr<DatabaseLock>(new DatabaseLock(fd, last_owner_died));
}

DatabaseLock::~DatabaseLock() {
  // Failing to empty it costs the next owner one needless check of the file.
  [[maybe_unused]] const int result = ftruncate(fd_, 0);
  close(fd_);
}

}  // namespace assay::storage::sqlite
