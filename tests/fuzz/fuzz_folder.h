// A folder in memory for parsers that read files: the fuzz target writes its bytes there and hands
// the path on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace assay::fuzz {

class FuzzFolder {
 public:
  // Under /dev/shm when there is one. One per process, removed at its end.
  FuzzFolder();
  ~FuzzFolder();
  FuzzFolder(const FuzzFolder&) = delete;
  FuzzFolder& operator=(const FuzzFolder&) = delete;

  const std::string& path() const { return path_; }
  void Write(const std::string& name, std::string_view bytes) const;

 private:
  std::string path_;
};

inline std::string_view AsText(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace assay::fuzz
