#include "tests/fuzz/fuzz_folder.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/status.h"

namespace assay::fuzz {

FuzzFolder::FuzzFolder() {
  std::error_code ignored;
  const bool has_memory = std::filesystem::is_directory("/dev/shm", ignored);
  path_ =
      (has_memory ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path()) /
      "assay-fuzz-XXXXXX";
  ASSAY_CHECK(::mkdtemp(path_.data()) != nullptr);
}

FuzzFolder::~FuzzFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void FuzzFolder::Write(const std::string& name, std::string_view bytes) const {
  std::ofstream file(path_ + "/" + name, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace assay::fuzz
