// A folder of content-addressed artifacts: ROOT/<key>/ holds an artifact's files and artifact.json,
// its manifest. What is under its key is complete: folders get there by one rename, after every
// byte is on disk and its hash agrees. Unfinished ones live in ROOT/.incoming and are swept away
// when the store is opened.
//
// Used by the coordinator (all artifacts, or the shared file system's) and by workers (a bounded
// cache). Several processes may share a root: publishing the same key twice is fine.
//
// Thread-safe. Errors: INVALID_ARGUMENT for what can never be right (names, sizes, keys), DATA_LOSS
// for content that does not have its hash, NOT_FOUND, UNAVAILABLE for the disk.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

#include "storage/artifacts/manifest.h"

namespace assay::storage {

class ArtifactUpload;

class ArtifactStore {
 public:
  // Makes `root` when it is missing.
  static absl::StatusOr<std::unique_ptr<ArtifactStore>> Open(const std::string& root);
  ~ArtifactStore();
  ArtifactStore(const ArtifactStore&) = delete;
  ArtifactStore& operator=(const ArtifactStore&) = delete;

  // Where the artifact is or would be. `key` must be a content key (64 lower-case hexadecimal
  // digits; ASSAY_CHECK: check what comes from the wire with IsArtifactKey).
  std::string Path(const std::string& key) const;
  bool Has(const std::string& key) const;
  // As recorded when it was published; NOT_FOUND.
  absl::StatusOr<Manifest> ReadManifest(const std::string& key) const;

  // A new empty folder on the same file system, for whoever makes an artifact and publishes it, or
  // removes it.
  absl::StatusOr<std::string> MakeWorkFolder();

  // Moves `dir` (from MakeWorkFolder, or on the same file system) to its key, after hashing it and
  // syncing it to disk; returns its manifest. DATA_LOSS when `expected_manifest_sha256` is not
  // empty and differs. When the key is there already, `dir` is removed and the stored manifest
  // returned.
  absl::StatusOr<Manifest> Publish(const std::string& dir, const std::string& key,
                                   const std::string& expected_manifest_sha256 = {});

  // Starts to receive an artifact whose manifest is told in advance. ALREADY_EXISTS when it is
  // here.
  absl::StatusOr<std::unique_ptr<ArtifactUpload>> BeginUpload(const std::string& key,
                                                              const Manifest& manifest);

  // At most `max_bytes` of the file from `offset` on, for sending; the file is file `index` of the
  // manifest. Empty at the end.
  absl::StatusOr<std::string> ReadChunk(const std::string& key, int index, int64_t offset,
                                        int64_t max_bytes) const;

  // Hashes every file again: DATA_LOSS names the first that is not what was published.
  absl::Status Verify(const std::string& key) const;

  // Bounded cache ---------------------------------------------------------------------------------

  // Marks the artifact as used now; Evict takes the longest unused first.
  void Touch(const std::string& key) const;
  // Removes artifacts, but none of `in_use`, until at most `max_bytes` are left; returns how many.
  absl::StatusOr<int> Evict(int64_t max_bytes, const std::set<std::string>& in_use);
  absl::StatusOr<int64_t> TotalBytes() const;

 private:
  friend class ArtifactUpload;
  explicit ArtifactStore(std::string root) : root_(std::move(root)) {}

  std::string incoming() const { return root_ + "/.incoming"; }
  void SweepIncoming();
  // Puts a complete and synced folder under its key; `manifest` is of its files.
  absl::StatusOr<Manifest> Install(const std::string& dir, const std::string& key,
                                   const Manifest& manifest);
  // Removes a folder of MakeWorkFolder and lets go of its lock.
  void Discard(const std::string& dir);

  const std::string root_;
  std::mutex mutex_;
  std::map<std::string, int> lock_fds_;  // of work folders, by path; guarded by mutex_
};

bool IsArtifactKey(std::string_view key);

}  // namespace assay::storage
