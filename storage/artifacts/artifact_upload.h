// Receiving an artifact in chunks, from a peer that is not trusted.
#pragma once

#include <absl/status/status.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "storage/artifacts/manifest.h"

namespace assay::storage {

class ArtifactStore;

// An artifact on its way in. Chunks come per file in order; a file's hash is checked at its end and
// the whole is published by Finish. Dropping the upload removes what came. Not thread-safe; must
// not outlive its store.
class ArtifactUpload {
 public:
  ~ArtifactUpload();
  ArtifactUpload(const ArtifactUpload&) = delete;
  ArtifactUpload& operator=(const ArtifactUpload&) = delete;

  // INVALID_ARGUMENT when the chunk is not the next one or goes beyond the file's size; DATA_LOSS
  // when the file is complete and its hash differs. After an error the upload is over, and calls
  // return FAILED_PRECONDITION: begin again.
  absl::Status Append(int file_index, int64_t offset, std::string_view data);
  // Publishes, and ends the upload. INVALID_ARGUMENT when bytes are missing; DATA_LOSS when
  // something else was published under the key meanwhile.
  absl::Status Finish();

 private:
  friend class ArtifactStore;
  struct OpenFile;
  ArtifactUpload(ArtifactStore* store, std::string key, Manifest manifest, std::string dir);

  absl::Status AppendChunk(int file_index, int64_t offset, std::string_view data);
  // Moves on to file `index`; the files before it must be complete.
  absl::Status AdvanceTo(int index);
  absl::Status CloseCurrent();

  ArtifactStore* const store_;
  const std::string key_;
  const Manifest manifest_;
  const std::string dir_;
  bool is_over_ = false;
  bool published_ = false;
  std::unique_ptr<OpenFile> file_;  // the one being written
  int file_index_ = -1;
};

}  // namespace assay::storage
