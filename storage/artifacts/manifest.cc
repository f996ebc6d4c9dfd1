#include "storage/artifacts/manifest.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/hash.h"
#include "base/json_check.h"
#include "base/status.h"

namespace assay::storage {
namespace {

constexpr size_t kMaxFiles = 4096;
constexpr size_t kMaxNameBytes = 255;
constexpr int64_t kMaxTotalBytes = int64_t{4} << 40;  // a 671B model in bf16 is 1.3 TB

bool IsSha256(std::string_view hash) {
  return hash.size() == 64 && std::ranges::all_of(hash, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

}  // namespace

int64_t Manifest::total_bytes() const {
  int64_t total = 0;
  for (const ManifestFile& file : files) total += file.size_bytes;
  return total;
}

std::string HashOfFiles(const std::vector<ManifestFile>& files) {
  Sha256 hash;
  for (const ManifestFile& file : files) {
    hash.UpdateField(file.name);
    hash.UpdateField(std::to_string(file.size_bytes));
    hash.UpdateField(file.sha256);
  }
  return hash.HexDigest();
}

bool IsPlainFileName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes && name.front() != '.' &&
         name != kManifestFileName && std::ranges::all_of(name, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';
         });
}

absl::Status CheckManifest(const Manifest& manifest) {
  if (manifest.files.empty() || manifest.files.size() > kMaxFiles) {
    return InvalidArgument("a manifest has {} files; it must have 1 to {}", manifest.files.size(),
                           kMaxFiles);
  }
  int64_t total_bytes = 0;
  std::string_view last_name;
  for (const ManifestFile& file : manifest.files) {
    if (!IsPlainFileName(file.name)) {
      return InvalidArgument(
          "'{}' cannot be a file of an artifact: a name is letters, digits and "
          "._- without a dot at the start",
          file.name.substr(0, kMaxNameBytes));
    }
    if (file.name <= last_name) {
      return InvalidArgument("manifest file '{}' is not in name order, or there twice", file.name);
    }
    if (file.size_bytes < 0 || file.size_bytes > kMaxTotalBytes - total_bytes) {
      return InvalidArgument("manifest file '{}' has {} bytes; an artifact has at most {}",
                             file.name, file.size_bytes, kMaxTotalBytes);
    }
    if (!IsSha256(file.sha256)) {
      return InvalidArgument("manifest file '{}' has no SHA-256 of 64 lower-case digits",
                             file.name);
    }
    total_bytes += file.size_bytes;
    last_name = file.name;
  }
  if (manifest.manifest_sha256 != HashOfFiles(manifest.files)) {
    return InvalidArgument("manifest_sha256 '{}' is not the hash of the files listed",
                           manifest.manifest_sha256.substr(0, 64));
  }
  return absl::OkStatus();
}

absl::StatusOr<Manifest> ComputeManifest(const std::string& dir) {
  std::error_code error;
  std::filesystem::directory_iterator entries(dir, error);
  if (error) return NotFound("{}: {}", dir, error.message());
  Manifest manifest;
  for (const std::filesystem::directory_entry& entry : entries) {
    const std::string name = entry.path().filename().string();
    if (name == kManifestFileName) continue;
    if (!IsPlainFileName(name) || entry.is_symlink(error) || !entry.is_regular_file(error)) {
      return InvalidArgument("{}: '{}' is not a plain file with a plain name", dir, name);
    }
    ManifestFile& file = manifest.files.emplace_back();
    file.name = name;
    file.size_bytes = static_cast<int64_t>(entry.file_size(error));
    if (error) return Unavailable("{}/{}: {}", dir, name, error.message());
    ASSAY_ASSIGN_OR_RETURN(file.sha256, Sha256OfFile(entry.path().string()));
  }
  std::ranges::sort(manifest.files, {}, &ManifestFile::name);
  manifest.manifest_sha256 = HashOfFiles(manifest.files);
  ASSAY_RETURN_IF_ERROR(CheckManifest(manifest));
  return manifest;
}

std::string ManifestToJson(const Manifest& manifest) {
  nlohmann::json files = nlohmann::json::array();
  for (const ManifestFile& file : manifest.files) {
    files.push_back(
        {{"name", file.name}, {"sha256", file.sha256}, {"size_bytes", file.size_bytes}});
  }
  const nlohmann::json json = {{"files", files}, {"manifest_sha256", manifest.manifest_sha256}};
  return json.dump(1) + "\n";
}

absl::StatusOr<Manifest> ManifestFromJson(std::string_view text) {
  ASSAY_RETURN_IF_ERROR(CheckJson(text, kManifestFileName));
  Manifest manifest;
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    for (const nlohmann::json& entry : json.at("files")) {
      ManifestFile& file = manifest.files.emplace_back();
      entry.at("name").get_to(file.name);
      entry.at("sha256").get_to(file.sha256);
      entry.at("size_bytes").get_to(file.size_bytes);
    }
    json.at("manifest_sha256").get_to(manifest.manifest_sha256);
  } catch (const nlohmann::json::exception& error) {
    return InvalidArgument("{}: {}", kManifestFileName, error.what());
  }
  ASSAY_RETURN_IF_ERROR(CheckManifest(manifest));
  return manifest;
}

}  // namespace assay::storage
