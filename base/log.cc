#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>

#include <cstdlib>

namespace assay {

void InitLogging(const std::string& program, const std::string& level) {
  auto logger = spdlog::stderr_logger_mt(program);
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%f%z %L %n[%P]: %v");
  const char* override_level = std::getenv("ASSAY_LOG");
  logger->set_level(spdlog::level::from_str(override_level != nullptr ? override_level : level));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace assay
