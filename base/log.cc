#include "base/log.h"

#include <absl/time/time.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

namespace assay {
namespace {

// The fields of the record that this thread is logging. Loggers are synchronous, so they live until
// the record is formatted.
thread_local const LogFields* current_fields = nullptr;

// The flag %* of a pattern: " sweep=sweep-1 lease=lease-2". A value with spaces is quoted.
class FieldsFlag final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg&, const std::tm&,
              spdlog::memory_buf_t& line) override {
    if (current_fields == nullptr) return;
    for (const auto& [name, value] : *current_fields) {
      if (value.empty()) continue;
      const bool plain = value.find_first_of(" \t\n\"") == std::string::npos;
      fmt::format_to(std::back_inserter(line), " {}={}", name,
                     plain ? value : nlohmann::json(value).dump(-1, ' ', false, kReplace));
    }
  }
  std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<FieldsFlag>();
  }

 private:
  static constexpr auto kReplace = nlohmann::json::error_handler_t::replace;
};

class JsonFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& line) override {
    nlohmann::ordered_json record;
    record["time"] = absl::FormatTime("%Y-%m-%dT%H:%M:%E6S%Ez", absl::FromChrono(message.time),
                                      absl::UTCTimeZone());
    const auto level = spdlog::level::to_string_view(message.level);
    record["level"] = std::string(level.data(), level.size());
    record["program"] = std::string(message.logger_name.data(), message.logger_name.size());
    record["pid"] = getpid();
    record["message"] = std::string(message.payload.data(), message.payload.size());
    if (current_fields != nullptr) {
      for (const auto& [name, value] : *current_fields) {
        if (!value.empty()) record[std::string(name)] = value;
      }
    }
    // Broken UTF-8 of a file name or a peer must not lose the record.
    const std::string text =
        record.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    line.append(text.data(), text.data() + text.size());
    line.push_back('\n');
  }
  std::unique_ptr<formatter> clone() const override { return std::make_unique<JsonFormatter>(); }
};

}  // namespace

void InitLogging(const std::string& program, const std::string& level, LogFormat format) {
  const char* format_override = std::getenv("ASSAY_LOG_FORMAT");
  if (format_override != nullptr && std::string_view(format_override) == "json") {
    format = LogFormat::kJson;
  }
  auto logger = spdlog::stderr_logger_mt(program);
  if (format == LogFormat::kJson) {
    setenv("ASSAY_LOG_FORMAT", "json", /*replace=*/1);
    logger->set_formatter(std::make_unique<JsonFormatter>());
  } else {
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<FieldsFlag>('*').set_pattern("%Y-%m-%dT%H:%M:%S.%f%z %L %n[%P]: %v%*");
    logger->set_formatter(std::move(formatter));
  }
  const char* const wanted = std::getenv("ASSAY_LOG");
  // What spdlog does not know it takes for "off".
  const bool is_level =
      wanted != nullptr &&
      (spdlog::level::from_str(wanted) != spdlog::level::off || std::string_view(wanted) == "off");
  logger->set_level(spdlog::level::from_str(is_level ? wanted : level));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  if (wanted != nullptr && !is_level) {
    spdlog::warn("ASSAY_LOG is '{}', not trace, debug, info, warn, error or off: it is {}", wanted,
                 level);
  }
}

void LogWith(spdlog::level::level_enum level, const LogFields& fields, std::string_view message) {
  if (!spdlog::should_log(level)) return;
  current_fields = &fields;
  spdlog::log(level, "{}", message);
  current_fields = nullptr;
}

}  // namespace assay
