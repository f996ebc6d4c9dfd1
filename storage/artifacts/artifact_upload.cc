#include "storage/artifacts/artifact_upload.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/hash.h"
#include "base/status.h"
#include "storage/artifacts/artifact_store.h"

namespace assay::storage {

struct ArtifactUpload::OpenFile {
  explicit OpenFile(int descriptor) : fd(descriptor) {}
  ~OpenFile() { close(fd); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  const int fd;
  int64_t num_bytes = 0;
  Sha256 hash;
};

ArtifactUpload::ArtifactUpload(ArtifactStore* store, std::string key, Manifest manifest,
                               std::string dir)
    : store_(store), key_(std::move(key)), manifest_(std::move(manifest)), dir_(std::move(dir)) {}

ArtifactUpload::~ArtifactUpload() {
  file_.reset();
  if (!published_) store_->Discard(dir_);
}

absl::Status ArtifactUpload::AdvanceTo(int index) {
  while (file_index_ < index) {
    if (file_ != nullptr) ASSAY_RETURN_IF_ERROR(CloseCurrent());
    ++file_index_;
    const std::string path = dir_ + "/" + manifest_.files[static_cast<size_t>(file_index_)].name;
    const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) return Unavailable("{}: cannot be made: {}", path, strerror(errno));
    file_ = std::make_unique<OpenFile>(fd);
  }
  return absl::OkStatus();
}

absl::Status ArtifactUpload::CloseCurrent() {
  const ManifestFile& expected = manifest_.files[static_cast<size_t>(file_index_)];
  if (file_->num_bytes != expected.size_bytes) {
    return InvalidArgument("artifact {}: '{}' ended after {} of {} bytes", key_, expected.name,
                           file_->num_bytes, expected.size_bytes);
  }
  const std::string hash = file_->hash.HexDigest();
  if (hash != expected.sha256) {
    return DataLoss("artifact {}: '{}' arrived with the hash {}, not {}; send it again", key_,
                    expected.name, hash, expected.sha256);
  }
  if (fsync(file_->fd) != 0) {
    return Unavailable("{}/{}: fsync failed: {}", dir_, expected.name, strerror(errno));
  }
  file_.reset();
  return absl::OkStatus();
}

absl::Status ArtifactUpload::Append(int file_index, int64_t offset, std::string_view data) {
  if (is_over_) return FailedPrecondition("artifact {}: the upload is over", key_);
  absl::Status status = AppendChunk(file_index, offset, data);
  is_over_ = !status.ok();
  return status;
}

absl::Status ArtifactUpload::AppendChunk(int file_index, int64_t offset, std::string_view data) {
  if (file_index < std::max(file_index_, 0) ||
      file_index >= static_cast<int>(manifest_.files.size())) {
    return InvalidArgument("artifact {}: a chunk of file {} comes out of order", key_, file_index);
  }
  ASSAY_RETURN_IF_ERROR(AdvanceTo(file_index));
  const ManifestFile& expected = manifest_.files[static_cast<size_t>(file_index)];
  if (file_ == nullptr || offset != file_->num_bytes) {
    return InvalidArgument("artifact {}: a chunk of '{}' at {}, where {} was next", key_,
                           expected.name, offset,
                           file_ == nullptr ? expected.size_bytes : file_->num_bytes);
  }
  if (static_cast<int64_t>(data.size()) > expected.size_bytes - offset) {
    return InvalidArgument("artifact {}: '{}' is longer than its {} bytes", key_, expected.name,
                           expected.size_bytes);
  }
  file_->hash.Update(data);
  while (!data.empty()) {
    const ssize_t written = write(file_->fd, data.data(), data.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      return Unavailable("{}/{}: write failed: {}; is the disk full?", dir_, expected.name,
                         strerror(errno));
    }
    file_->num_bytes += written;
    data.remove_prefix(static_cast<size_t>(written));
  }
  if (file_->num_bytes == expected.size_bytes) return CloseCurrent();
  return absl::OkStatus();
}

absl::Status ArtifactUpload::Finish() {
  if (is_over_) return FailedPrecondition("artifact {}: the upload is over", key_);
  is_over_ = true;
  ASSAY_RETURN_IF_ERROR(AdvanceTo(static_cast<int>(manifest_.files.size()) - 1));
  if (file_ != nullptr) ASSAY_RETURN_IF_ERROR(CloseCurrent());
  const absl::StatusOr<Manifest> installed = store_->Install(dir_, key_, manifest_);
  ASSAY_RETURN_IF_ERROR(installed.status());
  published_ = true;
  if (installed->manifest_sha256 != manifest_.manifest_sha256) {
    return DataLoss("artifact {}: another content was published first, manifest {}", key_,
                    installed->manifest_sha256);
  }
  return absl::OkStatus();
}

}  // namespace assay::storage
