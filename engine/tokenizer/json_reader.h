// Reading JSON files from outside: every access is checked, and every error names file and key.
// Internal to the tokenizer; whoever looks into a Json includes nlohmann/json.hpp.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace assay::engine {

using Json = nlohmann::json;

// A value with the way to it, for error messages.
class JsonReader {
 public:
  // `value` outlives the reader. `where` is "file" or "file: key.key".
  JsonReader(const Json* value, std::string where) : value_(value), where_(std::move(where)) {}

  const Json& value() const { return *value_; }
  const std::string& where() const { return where_; }

  // An INVALID_ARGUMENT about this value.
  absl::Status Error(const std::string& what) const;

  bool is_null() const;

  // Members of an object. A missing key reads as null. INVALID_ARGUMENT when this is no object.
  absl::StatusOr<JsonReader> Member(const std::string& key) const;

  // Elements of an array.
  absl::StatusOr<std::vector<JsonReader>> Elements() const;

  // The value as a type; the second form takes a missing or null member as `fallback`.
  absl::StatusOr<std::string> String() const;
  absl::StatusOr<std::string> StringMember(const std::string& key) const;
  absl::StatusOr<bool> BoolMember(const std::string& key, bool fallback) const;
  absl::StatusOr<int64_t> Integer(int64_t low, int64_t high) const;

 private:
  const Json* value_;
  std::string where_;
};

// Parses `text`; `file` is for messages. A name that comes twice in an object is an error.
absl::StatusOr<Json> ParseJson(const std::string& text, const std::string& file);

}  // namespace assay::engine
