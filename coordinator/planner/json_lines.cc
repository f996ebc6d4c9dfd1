#include "coordinator/planner/json_lines.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/json_check.h"
#include "base/status.h"

namespace assay::coordinator {
namespace {

using Json = nlohmann::json;

absl::StatusOr<JsonRecord> ReadRecord(std::string_view line, const std::string& where,
                                      const std::vector<std::string>& names) {
  // Benchmarks carry other people's extra fields, so nesting is fine, within reason.
  ASSAY_RETURN_IF_ERROR(CheckJson(line, where, /*max_depth=*/32));
  const Json object = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return InvalidArgument("{}: must be a JSON object", where);

  JsonRecord record;
  for (const std::string& name : names) {
    const auto found = object.find(name);
    const bool present = found != object.end() && !found->is_null();
    record.present.push_back(present);
    if (!present) {
      record.fields.emplace_back();
    } else if (found->is_string()) {
      record.fields.push_back(found->get<std::string>());
    } else if (found->is_number()) {
      record.fields.push_back(found->dump());
    } else {
      return InvalidArgument("{}: field '{}' must be a string or a number, not {}", where, name,
                             found->type_name());
    }
  }
  return record;
}

}  // namespace

absl::Status ForEachJsonLine(
    std::string_view text, const std::string& file_name, const std::vector<std::string>& names,
    const std::function<absl::Status(JsonRecord record, const std::string& where)>& visit) {
  int64_t line_number = 0;
  while (!text.empty()) {
    ++line_number;
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}:{}", file_name, line_number);
    if (line.size() > kMaxJsonLineBytes) {
      return InvalidArgument("{}: a line of {} bytes; at most {} are allowed", where, line.size(),
                             kMaxJsonLineBytes);
    }
    ASSAY_ASSIGN_OR_RETURN(JsonRecord record, ReadRecord(line, where, names));
    ASSAY_RETURN_IF_ERROR(visit(std::move(record), where));
  }
  return absl::OkStatus();
}

std::string FindUnderRoots(const std::vector<std::string>& roots, const std::string& relative) {
  for (const std::string& root : roots) {
    const std::filesystem::path path = std::filesystem::path(root) / relative;
    std::error_code ignored;
    if (std::filesystem::is_regular_file(path, ignored)) return path.string();
  }
  return "";
}

}  // namespace assay::coordinator
