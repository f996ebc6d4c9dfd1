// Walking through a JSON-lines file that somebody else wrote.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace assay::coordinator {

inline constexpr size_t kMaxJsonLineBytes = size_t{4} << 20;

// The string fields of one record, by the names asked for; numbers come as their text. A field that
// is absent or null is empty.
struct JsonRecord {
  std::vector<std::string> fields;
  std::vector<bool> present;
};

// Calls `visit` for each line that is not blank, with the fields `names` of its object and where it
// stands ("file:12"). Stops at the first error. INVALID_ARGUMENT: a line that is too long, not
// UTF-8, not a JSON object, nested too deep, or a field that is neither string nor number.
absl::Status ForEachJsonLine(
    std::string_view text, const std::string& file_name, const std::vector<std::string>& names,
    const std::function<absl::Status(JsonRecord record, const std::string& where)>& visit);

// The first of the files root/relative that exists, or empty.
std::string FindUnderRoots(const std::vector<std::string>& roots, const std::string& relative);

}  // namespace assay::coordinator
