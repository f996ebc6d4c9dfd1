#include "tests/chaos/small_disk.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/file.h"
#include "base/status.h"
#include "tests/chaos/processes.h"

namespace assay::chaos {
namespace {

constexpr char kBallast[] = "/ballast";

}  // namespace

absl::Status OwnMounts() {
  if (::geteuid() != 0) return Unavailable("mounting needs root");
  if (::unshare(CLONE_NEWNS) != 0 ||
      ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return Unavailable("mount namespaces are not permitted here: {}", std::strerror(errno));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<SmallDisk>> SmallDisk::Mount(const std::string& directory,
                                                            int64_t num_bytes) {
  ASSAY_RETURN_IF_ERROR(MakeDirectories(directory));
  const std::string options = fmt::format("size={}", num_bytes);
  if (::mount("assay-chaos", directory.c_str(), "tmpfs", 0, options.c_str()) != 0) {
    return Unavailable("{}: cannot mount a tmpfs: {}", directory, std::strerror(errno));
  }
  return std::unique_ptr<SmallDisk>(new SmallDisk(directory));
}

SmallDisk::~SmallDisk() { ::umount2(directory_.c_str(), MNT_DETACH); }

absl::Status SmallDisk::Fill() {
  const std::string path = directory_ + kBallast;
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return Unavailable("{}: {}", path, std::strerror(errno));
  // Ever smaller pieces, until not one byte goes in.
  for (std::string piece(1 << 16, '\0'); !piece.empty();) {
    if (::write(fd, piece.data(), piece.size()) <= 0) piece.resize(piece.size() / 2);
  }
  const bool is_full = errno == ENOSPC;
  ::close(fd);
  if (!is_full) return Unavailable("{}: the disk takes no more, but is not full", path);
  return absl::OkStatus();
}

void SmallDisk::Free() { ::unlink((directory_ + kBallast).c_str()); }

absl::Status LimitFileSize(pid_t process, int64_t num_bytes) {
  std::vector<pid_t> all = ChildrenOf(process);
  all.push_back(process);
  for (const pid_t pid : all) {
    struct rlimit limit {};
    if (::prlimit(pid, RLIMIT_FSIZE, nullptr, &limit) != 0) continue;  // it has just ended
    limit.rlim_cur = num_bytes < 0 ? limit.rlim_max : static_cast<rlim_t>(num_bytes);
    if (::prlimit(pid, RLIMIT_FSIZE, &limit, nullptr) != 0 && errno != ESRCH) {
      return Unavailable("prlimit of process {}: {}", pid, std::strerror(errno));
    }
  }
  return absl::OkStatus();
}

}  // namespace assay::chaos
