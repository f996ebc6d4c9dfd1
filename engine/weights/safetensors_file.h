// One safetensors file, mapped read-only.
#pragma once

#include <absl/status/statusor.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/weights/checkpoint.h"
#include "engine/weights/safetensors_header.h"

namespace assay::engine {

class SafetensorsFile {
 public:
  // Errors as Checkpoint::Open, naming the path.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::vector<HeaderEntry>& entries() const { return entries_; }
  TensorView View(const HeaderEntry& entry) const;

 private:
  explicit SafetensorsFile(std::span<const std::byte> mapping) : mapping_(mapping) {}

  const std::span<const std::byte> mapping_;
  std::span<const std::byte> data_;  // after the header
  std::vector<HeaderEntry> entries_;
};

}  // namespace assay::engine
