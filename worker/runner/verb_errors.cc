#include "worker/runner/verb_errors.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <iostream>

#include "base/exit_codes.h"
#include "base/status.h"

namespace assay::worker {

int FailVerb(const absl::Status& status) {
  std::string message = Message(status);
  std::replace(message.begin(), message.end(), '\n', ' ');
  std::cout.flush();
  std::cerr << program_invocation_short_name << ": " << message << std::endl;
  return ExitCode(status);
}

int FailLine(int64_t line_number, const std::string& message) {
  return FailVerb(InvalidArgument("line {}: {}", line_number, message));
}

absl::Status CheckModelFolder(const std::string& model_dir, const char* file) {
  std::error_code error;
  if (!std::filesystem::is_directory(model_dir, error)) {
    return NotFound("{}: no such model folder", model_dir);
  }
  if (!std::filesystem::exists(std::filesystem::path(model_dir) / file, error)) {
    return NotFound("{}: has no {}", model_dir, file);
  }
  return absl::OkStatus();
}

}  // namespace assay::worker
