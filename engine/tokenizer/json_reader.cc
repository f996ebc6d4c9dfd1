#include "engine/tokenizer/json_reader.h"

#include <nlohmann/json.hpp>

#include "base/json_check.h"
#include "base/status.h"

namespace assay::engine {

bool JsonReader::is_null() const { return value_->is_null(); }

absl::Status JsonReader::Error(const std::string& what) const {
  return InvalidArgument("{}: {}", where_, what);
}

absl::StatusOr<JsonReader> JsonReader::Member(const std::string& key) const {
  static const Json kNull;
  if (!value_->is_object()) {
    return Error(fmt::format("expected an object, found {}", value_->type_name()));
  }
  const auto member = value_->find(key);
  const bool at_file = where_.find(": ") == std::string::npos;
  return JsonReader(member == value_->end() ? &kNull : &*member,
                    where_ + (at_file ? ": " : ".") + key);
}

absl::StatusOr<std::vector<JsonReader>> JsonReader::Elements() const {
  if (!value_->is_array()) {
    return Error(fmt::format("expected an array, found {}", value_->type_name()));
  }
  std::vector<JsonReader> elements;
  elements.reserve(value_->size());
  for (size_t i = 0; i < value_->size(); ++i) {
    elements.emplace_back(&(*value_)[i], fmt::format("{}[{}]", where_, i));
  }
  return elements;
}

absl::StatusOr<std::string> JsonReader::String() const {
  if (!value_->is_string()) {
    return Error(fmt::format("expected a string, found {}", value_->type_name()));
  }
  return value_->get<std::string>();
}

absl::StatusOr<std::string> JsonReader::StringMember(const std::string& key) const {
  ASSAY_ASSIGN_OR_RETURN(const JsonReader member, Member(key));
  return member.String();
}

absl::StatusOr<bool> JsonReader::BoolMember(const std::string& key, bool fallback) const {
  ASSAY_ASSIGN_OR_RETURN(const JsonReader member, Member(key));
  if (member.is_null()) return fallback;
  if (!member.value().is_boolean()) {
    return member.Error(
        fmt::format("expected true or false, found {}", member.value().type_name()));
  }
  return member.value().get<bool>();
}

absl::StatusOr<int64_t> JsonReader::Integer(int64_t low, int64_t high) const {
  if (!value_->is_number_integer()) {
    return Error(fmt::format("expected an integer, found {}", value_->type_name()));
  }
  const bool is_huge = value_->is_number_unsigned() && value_->get<uint64_t>() > INT64_MAX;
  const int64_t number = is_huge ? INT64_MAX : value_->get<int64_t>();
  if (number < low || number > high) {
    return Error(fmt::format("{} is not in {}..{}", value_->dump(), low, high));
  }
  return number;
}

absl::StatusOr<Json> ParseJson(const std::string& text, const std::string& file) {
  ASSAY_RETURN_IF_ERROR(CheckJson(text, file));
  try {
    return Json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    return InvalidArgument("{}: {}", file, error.what());
  }
}

}  // namespace assay::engine
