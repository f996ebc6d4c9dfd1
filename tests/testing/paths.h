// Where tests find things, and folders that vanish after the test.
#pragma once

#include <string>

namespace assay::testing {

std::string SourcePath(const std::string& relative);  // in the repository
std::string BinaryPath(const std::string& program);   // a program of this build

// `../shared/<relative>` beside the checkout, or empty when this machine has none: the test then
// skips with GTEST_SKIP() << kNoShared.
std::string SharedPath(const std::string& relative);
inline constexpr char kNoShared[] =
    "needs the shared reference data beside the checkout (../shared), which is not here";

// A new empty folder, removed with everything in it by the destructor.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace assay::testing
