#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "base/ids.h"
#include "base/status.h"

namespace assay {
namespace {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

absl::Status WriteAndSync(int fd, std::string_view content, const std::string& path) {
  size_t written = 0;
  while (written < content.size()) {
    const ssize_t n = ::write(fd, content.data() + written, content.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Unavailable("{}: write failed: {}", path, std::strerror(errno));
    written += static_cast<size_t>(n);
  }
  if (::fsync(fd) != 0) return Unavailable("{}: fsync failed: {}", path, std::strerror(errno));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes) {
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return NotFound("{}: cannot open: {}", path, std::strerror(errno));
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) {
    return Unavailable("{}: cannot stat: {}", path, std::strerror(errno));
  }
  if (S_ISDIR(info.st_mode)) return InvalidArgument("{}: is a directory, not a file", path);
  if (info.st_size > max_bytes) {
    return InvalidArgument("{}: {} bytes, more than the limit of {}", path, info.st_size,
                           max_bytes);
  }
  std::string content;
  content.reserve(static_cast<size_t>(info.st_size));
  char buffer[1 << 16];
  while (true) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Unavailable("{}: read failed: {}", path, std::strerror(errno));
    if (n == 0) return content;
    content.append(buffer, static_cast<size_t>(n));
    if (static_cast<int64_t>(content.size()) > max_bytes) {
      return InvalidArgument("{}: more than the limit of {} bytes", path, max_bytes);
    }
  }
}

absl::StatusOr<std::string> ReadSecretFile(const std::string& path) {
  constexpr int64_t kMaxSecretBytes = 64 << 10;
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    return NotFound("{}: cannot open: {}", path, std::strerror(errno));
  }
  if ((info.st_mode & S_IRWXO) != 0) {
    return FailedPrecondition("{}: holds a secret that others on this machine may read: chmod 600",
                              path);
  }
  return ReadFile(path, kMaxSecretBytes);
}

absl::Status WriteFileAtomically(const std::string& path, std::string_view content) {
  const std::string temporary = path + RandomId(".tmp");
  absl::Status status;
  {
    const FileDescriptor fd(
        ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (fd.get() < 0) return Unavailable("{}: cannot create: {}", path, std::strerror(errno));
    status = WriteAndSync(fd.get(), content, path);
  }
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    status = Unavailable("{}: rename failed: {}", path, std::strerror(errno));
  }
  if (!status.ok()) {
    ::unlink(temporary.c_str());
    return status;
  }
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return SyncDirectory(parent.empty() ? "." : parent);
}

absl::Status MakeDirectories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return Unavailable("{}: cannot create folder: {}", path, error.message());
  return absl::OkStatus();
}

absl::Status SyncDirectory(const std::string& path) {
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) return Unavailable("{}: cannot open folder: {}", path, std::strerror(errno));
  if (::fsync(fd.get()) != 0) {
    return Unavailable("{}: fsync failed: {}", path, std::strerror(errno));
  }
  return absl::OkStatus();
}

std::string ProgramDirectory() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? "." : program.parent_path().string();
}

}  // namespace assay
