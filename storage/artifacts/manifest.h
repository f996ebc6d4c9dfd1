// What an artifact folder holds: names, sizes and SHA-256 of its files. The manifest's own hash
// names the content as a whole; coordinator and workers agree on an artifact by it.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace assay::storage {

struct ManifestFile {
  std::string name;  // a plain file name: no slash, no dot at the start
  int64_t size_bytes = 0;
  std::string sha256;  // 64 lower-case hexadecimal digits
  friend bool operator==(const ManifestFile&, const ManifestFile&) = default;
};

struct Manifest {
  std::vector<ManifestFile> files;  // in name order
  std::string manifest_sha256;      // HashOfFiles(files)
  friend bool operator==(const Manifest&, const Manifest&) = default;
  int64_t total_bytes() const;
};

// SHA-256 over the fields (name, decimal size, sha256) of each file in order.
std::string HashOfFiles(const std::vector<ManifestFile>& files);

// INVALID_ARGUMENT unless the manifest is well formed: 1 to 4096 files, plain names in strict
// order, sizes and total within limits, hashes of the right form, and manifest_sha256 theirs.
// Anything from the wire goes through it first.
absl::Status CheckManifest(const Manifest& manifest);

// Whether `name` may be a file of an artifact: 1..255 of [A-Za-z0-9._-], no dot at the start, and
// not "artifact.json", where the manifest itself is kept.
bool IsPlainFileName(std::string_view name);

// Hashes the files of a folder, artifact.json aside. INVALID_ARGUMENT when it holds anything but
// plain files with plain names.
absl::StatusOr<Manifest> ComputeManifest(const std::string& dir);

// artifact.json: {"files": [{"name", "sha256", "size_bytes"}], "manifest_sha256"}.
inline constexpr char kManifestFileName[] = "artifact.json";
std::string ManifestToJson(const Manifest& manifest);
absl::StatusOr<Manifest> ManifestFromJson(std::string_view json);  // checked

}  // namespace assay::storage
