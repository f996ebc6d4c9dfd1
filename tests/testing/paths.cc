#include "tests/testing/paths.h"

#include <cstdlib>
#include <filesystem>

#include "base/status.h"

namespace assay::testing {

std::string SourcePath(const std::string& relative) {
  return std::string(ASSAY_SOURCE_DIR) + "/" + relative;
}

std::string BinaryPath(const std::string& program) {
  return std::string(ASSAY_BIN_DIR) + "/" + program;
}

std::string SharedPath(const std::string& relative) {
  const std::filesystem::path path =
      std::filesystem::path(ASSAY_SOURCE_DIR).parent_path() / "shared" / relative;
  return std::filesystem::exists(path) ? path.string() : std::string();
}

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern = (std::filesystem::temp_directory_path() / "assay-test-XXXXXX").string();
  ASSAY_CHECK(::mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace assay::testing
