// Logging: spdlog on stderr, one line a record, with the program's name.
//
// Two forms: text for people, and JSON lines for machines:
//   {"time":"2026-11-22T02:10:31.123456+00:00","level":"info","program":"assay-worker","pid":7,
//    "message":"the lease expired","lease":"lease-0123","worker":"gpu-1"}
// What a record is about (sweep, cell, unit, lease, worker) is given as fields, so that both forms
// can be searched by it: in text they follow the message as name=value.
#pragma once

#include <spdlog/spdlog.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace assay {

enum class LogFormat { kText, kJson };

// Sets the process-wide logger. `level` is one of trace, debug, info, warn, error, off; the
// environment variables ASSAY_LOG and ASSAY_LOG_FORMAT (text or json) override what is given.
// Children inherit the format: it is put into ASSAY_LOG_FORMAT, so call this before threads start.
void InitLogging(const std::string& program, const std::string& level = "info",
                 LogFormat format = LogFormat::kText);

// Names are literals of ours: "sweep", "cell", "unit", "lease", "worker".
using LogFields = std::vector<std::pair<std::string_view, std::string>>;

// A record with fields; those with an empty value are left out. Thread-safe.
void LogWith(spdlog::level::level_enum level, const LogFields& fields, std::string_view message);

}  // namespace assay
