#include "base/status.h"

#include <cstdio>
#include <cstdlib>

namespace assay {

absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  return absl::Status(status.code(), fmt::format("{}: {}", context, Message(status)));
}

void CheckFailed(const char* file, int line, const char* expression, const std::string& what) {
  std::fprintf(stderr, "%s:%d: check failed: %s %s\n", file, line, expression, what.c_str());
  std::fflush(stderr);
  std::abort();
}

}  // namespace assay
