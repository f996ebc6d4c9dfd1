#include "coordinator/planner/calibration_file.h"

#include <fmt/ranges.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "base/file.h"
#include "base/hash.h"
#include "base/names.h"
#include "base/status.h"
#include "coordinator/planner/json_lines.h"

namespace assay::coordinator {
namespace {

std::vector<std::string> ListSets(const std::vector<std::string>& roots) {
  std::set<std::string> names;
  for (const std::string& root : roots) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(root, error)) {
      if (entry.path().extension() == ".jsonl") names.insert(entry.path().stem().string());
    }
  }
  return {names.begin(), names.end()};
}

}  // namespace

absl::StatusOr<CalibrationSet> ParseCalibrationJsonl(std::string_view jsonl,
                                                     const std::string& file_name) {
  static const std::vector<std::string> kFields = {"question", "response", "text"};
  CalibrationSet set;
  const auto add = [&](JsonRecord record, const std::string& where) -> absl::Status {
    const bool has_question = record.present[0];
    const bool has_response = record.present[1];
    const bool has_text = record.present[2];
    nlohmann::json kept;
    if (has_text && !has_question && !has_response) {
      kept = {{"text", record.fields[2]}};
    } else if (has_question && has_response && !has_text) {
      kept = {{"question", record.fields[0]}, {"response", record.fields[1]}};
    } else {
      return InvalidArgument("{}: needs the fields 'question' and 'response', or 'text' alone",
                             where);
    }
    if ((has_text ? record.fields[2] : record.fields[1]).empty()) {
      return InvalidArgument("{}: field '{}' is empty", where, has_text ? "text" : "response");
    }
    set.jsonl += kept.dump() + "\n";
    ++set.num_records;
    return absl::OkStatus();
  };
  ASSAY_RETURN_IF_ERROR(ForEachJsonLine(jsonl, file_name, kFields, add));
  if (set.num_records == 0) return InvalidArgument("{}: no records in it", file_name);
  set.hash = Sha256Hex(set.jsonl);
  return set;
}

absl::StatusOr<CalibrationSet> LoadCalibrationSet(const std::vector<std::string>& roots,
                                                  const std::string& name) {
  if (name.empty() || name.find('/') != std::string::npos || name.starts_with('.')) {
    return InvalidArgument("calibration set '{}': must be a plain name", name);
  }
  const std::string path = FindUnderRoots(roots, name + ".jsonl");
  if (path.empty()) {
    return NotFound(
        "calibration set '{}': no {}.jsonl under {}{}; add its root with --calibration", name, name,
        roots.empty() ? "(no calibration roots)" : fmt::format("{}", fmt::join(roots, ", ")),
        DidYouMean(name, ListSets(roots)));
  }
  absl::StatusOr<std::string> content = ReadFile(path, kMaxCalibrationBytes);
  if (!content.ok()) {
    return Annotate(content.status(), fmt::format("calibration set '{}'", name));
  }
  return ParseCalibrationJsonl(*content, path);
}

}  // namespace assay::coordinator
