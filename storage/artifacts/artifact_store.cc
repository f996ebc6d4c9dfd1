#include "storage/artifacts/artifact_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <vector>

#include "base/file.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/status.h"
#include "storage/artifacts/artifact_upload.h"

namespace assay::storage {
namespace {

constexpr int64_t kMaxManifestBytes = 4 << 20;

absl::Status SyncFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Unavailable("{}: cannot open: {}", path, strerror(errno));
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  if (result != 0) return Unavailable("{}: fsync failed: {}", path, strerror(error));
  return absl::OkStatus();
}

}  // namespace

bool IsArtifactKey(std::string_view key) {
  return key.size() == 64 && std::ranges::all_of(key, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

absl::StatusOr<std::unique_ptr<ArtifactStore>> ArtifactStore::Open(const std::string& root) {
  std::unique_ptr<ArtifactStore> store(new ArtifactStore(root));
  ASSAY_RETURN_IF_ERROR(MakeDirectories(store->incoming()));
  store->SweepIncoming();
  return store;
}

ArtifactStore::~ArtifactStore() {
  for (const auto& [dir, fd] : lock_fds_) close(fd);
}

// A folder whose lock can be taken belongs to nobody any more. Its lock exists and is held before
// the folder appears, so a new one is never mistaken.
void ArtifactStore::SweepIncoming() {
  std::error_code error;
  std::vector<std::filesystem::path> folders;
  for (const auto& entry : std::filesystem::directory_iterator(incoming(), error)) {
    if (entry.is_directory(error)) folders.push_back(entry.path());
  }
  for (const std::filesystem::path& folder : folders) {
    const std::string lock_path = folder.string() + ".lock";
    const int fd = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) continue;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
      std::filesystem::remove_all(folder, error);
      if (error) spdlog::warn("{}: cannot be removed: {}", folder.string(), error.message());
      unlink(lock_path.c_str());
    }
    close(fd);
  }
}

std::string ArtifactStore::Path(const std::string& key) const {
  ASSAY_CHECK(IsArtifactKey(key), "'{}' is not an artifact key", key);
  return root_ + "/" + key;
}

bool ArtifactStore::Has(const std::string& key) const {
  struct stat info;
  return stat((Path(key) + "/" + kManifestFileName).c_str(), &info) == 0;
}

absl::StatusOr<Manifest> ArtifactStore::ReadManifest(const std::string& key) const {
  if (!Has(key)) return NotFound("{}: there is no artifact {}", root_, key);
  const std::string path = Path(key) + "/" + kManifestFileName;
  ASSAY_ASSIGN_OR_RETURN(const std::string json, ReadFile(path, kMaxManifestBytes));
  absl::StatusOr<Manifest> manifest = ManifestFromJson(json);
  if (!manifest.ok()) {
    return DataLoss("{}: {}; remove the folder, and it is made again", path,
                    Message(manifest.status()));
  }
  return manifest;
}

absl::StatusOr<std::string> ArtifactStore::MakeWorkFolder() {
  const std::string dir = incoming() + "/" + RandomId("work");
  const std::string lock_path = dir + ".lock";
  const int fd = open(lock_path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return Unavailable("{}: cannot be made: {}", lock_path, strerror(errno));
  if (flock(fd, LOCK_EX | LOCK_NB) != 0 || mkdir(dir.c_str(), 0755) != 0) {
    const int error = errno;
    close(fd);
    unlink(lock_path.c_str());
    return Unavailable("{}: cannot be made: {}", dir, strerror(error));
  }
  const std::lock_guard guard(mutex_);
  lock_fds_[dir] = fd;
  return dir;
}

void ArtifactStore::Discard(const std::string& dir) {
  std::error_code error;
  std::filesystem::remove_all(dir, error);
  if (error) spdlog::warn("{}: cannot be removed: {}", dir, error.message());
  const std::lock_guard guard(mutex_);
  const auto lock = lock_fds_.find(dir);
  if (lock == lock_fds_.end()) return;
  unlink((dir + ".lock").c_str());
  close(lock->second);
  lock_fds_.erase(lock);
}

absl::StatusOr<Manifest> ArtifactStore::Publish(const std::string& dir, const std::string& key,
                                                const std::string& expected_manifest_sha256) {
  ASSAY_ASSIGN_OR_RETURN(const Manifest manifest, ComputeManifest(dir));
  if (!expected_manifest_sha256.empty() && manifest.manifest_sha256 != expected_manifest_sha256) {
    return DataLoss("{}: its manifest is {}, not {} as announced", dir, manifest.manifest_sha256,
                    expected_manifest_sha256);
  }
  for (const ManifestFile& file : manifest.files) {
    ASSAY_RETURN_IF_ERROR(SyncFile(dir + "/" + file.name));
  }
  return Install(dir, key, manifest);
}

absl::StatusOr<Manifest> ArtifactStore::Install(const std::string& dir, const std::string& key,
                                                const Manifest& manifest) {
  ASSAY_RETURN_IF_ERROR(
      WriteFileAtomically(dir + "/" + kManifestFileName, ManifestToJson(manifest)));
  // A folder can only be renamed onto one that is empty: the first publisher wins.
  const int result = rename(dir.c_str(), Path(key).c_str());
  const int error = errno;
  if (result != 0 && error != ENOTEMPTY && error != EEXIST) {
    return Unavailable("{}: cannot be renamed to {}: {}", dir, Path(key), strerror(error));
  }
  Discard(dir);
  if (result != 0) return ReadManifest(key);
  ASSAY_RETURN_IF_ERROR(SyncDirectory(root_));
  return manifest;
}

absl::StatusOr<std::unique_ptr<ArtifactUpload>> ArtifactStore::BeginUpload(
    const std::string& key, const Manifest& manifest) {
  if (!IsArtifactKey(key)) {
    return InvalidArgument("'{}' is not an artifact key: 64 lower-case hexadecimal digits",
                           key.substr(0, 64));
  }
  ASSAY_RETURN_IF_ERROR(CheckManifest(manifest));
  if (Has(key)) return AlreadyExists("artifact {} is here", key);
  ASSAY_ASSIGN_OR_RETURN(const std::string dir, MakeWorkFolder());
  return std::unique_ptr<ArtifactUpload>(new ArtifactUpload(this, key, manifest, dir));
}

absl::StatusOr<std::string> ArtifactStore::ReadChunk(const std::string& key, int index,
                                                     int64_t offset, int64_t max_bytes) const {
  ASSAY_ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(key));
  if (index < 0 || index >= static_cast<int>(manifest.files.size()) || offset < 0) {
    return InvalidArgument("artifact {} has no file {} with an offset {}", key, index, offset);
  }
  const std::string path = Path(key) + "/" + manifest.files[static_cast<size_t>(index)].name;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return DataLoss("{}: cannot open: {}", path, strerror(errno));
  std::string chunk(static_cast<size_t>(std::max<int64_t>(max_bytes, 0)), '\0');
  const ssize_t size = pread(fd, chunk.data(), chunk.size(), offset);
  const int error = errno;
  close(fd);
  if (size < 0) return Unavailable("{}: cannot read: {}", path, strerror(error));
  chunk.resize(static_cast<size_t>(size));
  return chunk;
}

absl::Status ArtifactStore::Verify(const std::string& key) const {
  ASSAY_ASSIGN_OR_RETURN(const Manifest stored, ReadManifest(key));
  const absl::StatusOr<Manifest> found = ComputeManifest(Path(key));
  if (!found.ok()) return DataLoss("artifact {}: {}", key, Message(found.status()));
  if (*found == stored) return absl::OkStatus();
  for (const ManifestFile& file : stored.files) {
    if (std::ranges::find(found->files, file) == found->files.end()) {
      return DataLoss("{}/{}: not what was published; remove the folder, and it is made again",
                      Path(key), file.name);
    }
  }
  return DataLoss("{}: holds files that were not published", Path(key));
}

void ArtifactStore::Touch(const std::string& key) const {
  utimensat(AT_FDCWD, (Path(key) + "/" + kManifestFileName).c_str(), nullptr, 0);
}

namespace {

struct CachedArtifact {
  std::filesystem::file_time_type last_used;
  std::string key;
  int64_t num_bytes = 0;
};

std::vector<CachedArtifact> ListArtifacts(const std::string& root) {
  std::vector<CachedArtifact> artifacts;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(root, error)) {
    CachedArtifact artifact;
    artifact.key = entry.path().filename().string();
    if (!IsArtifactKey(artifact.key)) continue;
    artifact.last_used = std::filesystem::last_write_time(entry.path() / kManifestFileName, error);
    for (const auto& file : std::filesystem::directory_iterator(entry.path(), error)) {
      std::error_code vanished;  // another process may evict it meanwhile
      const auto size = file.file_size(vanished);
      if (!vanished) artifact.num_bytes += static_cast<int64_t>(size);
    }
    artifacts.push_back(std::move(artifact));
  }
  return artifacts;
}

}  // namespace

absl::StatusOr<int64_t> ArtifactStore::TotalBytes() const {
  int64_t total = 0;
  for (const CachedArtifact& artifact : ListArtifacts(root_)) total += artifact.num_bytes;
  return total;
}

absl::StatusOr<int> ArtifactStore::Evict(int64_t max_bytes, const std::set<std::string>& in_use) {
  std::vector<CachedArtifact> artifacts = ListArtifacts(root_);
  std::ranges::sort(artifacts, {}, &CachedArtifact::last_used);
  int64_t total = 0;
  for (const CachedArtifact& artifact : artifacts) total += artifact.num_bytes;
  int num_evicted = 0;
  for (const CachedArtifact& artifact : artifacts) {
    if (total <= max_bytes) break;
    if (in_use.contains(artifact.key)) continue;
    // Out of sight in one step, so that what is under a key is always whole.
    ASSAY_ASSIGN_OR_RETURN(const std::string trash, MakeWorkFolder());
    const bool moved = rename(Path(artifact.key).c_str(), trash.c_str()) == 0;
    const int error = errno;
    Discard(trash);
    if (!moved && error != ENOENT) {
      return Unavailable("{}: cannot be removed: {}", Path(artifact.key), strerror(error));
    }
    total -= artifact.num_bytes;
    ++num_evicted;
  }
  return num_evicted;
}

}  // namespace assay::storage
