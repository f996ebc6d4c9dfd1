// Logging: spdlog on stderr, one line a record, with the program's name.
#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace assay {

// Sets the process-wide logger. `level` is one of trace, debug, info, warn, error, off; the
// environment variable ASSAY_LOG overrides it.
void InitLogging(const std::string& program, const std::string& level = "info");

}  // namespace assay
