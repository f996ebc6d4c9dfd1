#include "coordinator/spec/spec_reader.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/names.h"

namespace assay::coordinator {
namespace {

constexpr size_t kMaxReportedErrors = 20;
constexpr size_t kMaxStringBytes = 32 << 10;

// Hostile text must not fill a terminal.
std::string Shorten(std::string_view text) {
  constexpr size_t kMaxShown = 60;
  std::string shown(text.substr(0, kMaxShown));
  std::replace(shown.begin(), shown.end(), '\n', ' ');
  if (text.size() > kMaxShown) shown += "...";
  return shown;
}

template <typename T>
std::optional<T> ParseNumber(const std::string& text) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [next, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || next != end) return std::nullopt;
  return value;
}

}  // namespace

void SpecErrors::AddMessage(SpecPosition where, std::string message) {
  errors_.push_back({where, std::move(message)});
}

absl::Status SpecErrors::status() const {
  if (errors_.empty()) return absl::OkStatus();
  std::vector<Error> sorted = errors_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Error& a, const Error& b) {
    return std::pair(a.where.line, a.where.column) < std::pair(b.where.line, b.where.column);
  });
  std::vector<std::string> lines;
  for (const Error& error : sorted) {
    if (lines.size() == kMaxReportedErrors) {
      lines.push_back(
          fmt::format("{}: and {} more errors", file_name_, sorted.size() - kMaxReportedErrors));
      break;
    }
    lines.push_back(fmt::format("{}:{}:{}: {}", file_name_, error.where.line, error.where.column,
                                error.message));
  }
  return InvalidArgument("{}", fmt::join(lines, "\n"));
}

std::string DescribeNode(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kSequence:
      return "a list";
    case YamlNode::Kind::kMapping:
      return "a mapping";
    case YamlNode::Kind::kScalar:
      break;
  }
  return fmt::format("{}'{}'", node.quoted ? "the string " : "", Shorten(node.text));
}

std::optional<std::string> ReadString(const YamlNode& node, std::string_view what,
                                      SpecErrors* errors) {
  if (node.kind != YamlNode::Kind::kScalar) {
    errors->Add(node.where, "{} must be a string, not {}", what, DescribeNode(node));
    return std::nullopt;
  }
  if (node.text.size() > kMaxStringBytes) {
    errors->Add(node.where, "{} has {} bytes; at most {} are allowed", what, node.text.size(),
                kMaxStringBytes);
    return std::nullopt;
  }
  return node.text;
}

std::optional<int64_t> ReadInteger(const YamlNode& node, std::string_view what, int64_t min,
                                   int64_t max, SpecErrors* errors) {
  std::optional<int64_t> value;
  if (node.kind == YamlNode::Kind::kScalar && !node.quoted) {
    value = ParseNumber<int64_t>(node.text);
  }
  if (!value) {
    errors->Add(node.where, "{} must be an integer, not {}", what, DescribeNode(node));
    return std::nullopt;
  }
  if (*value < min || *value > max) {
    errors->Add(node.where, "{} {}: must be {} to {}", what, *value, min, max);
    return std::nullopt;
  }
  return value;
}

MappingReader::MappingReader(const YamlNode& node, std::string what, SpecErrors* errors)
    : node_(node),
      what_(std::move(what)),
      errors_(errors),
      is_mapping_(node.kind == YamlNode::Kind::kMapping) {
  if (!is_mapping_) {
    errors_->Add(node_.where, "{} must be a mapping (key: value), not {}", what_,
                 DescribeNode(node_));
  }
}

std::string MappingReader::Name(std::string_view key) const {
  return fmt::format("{} of {}", key, what_);
}

const YamlNode* MappingReader::Find(std::string_view key) {
  known_.emplace_back(key);
  if (!is_mapping_) return nullptr;
  for (size_t i = 0; i < node_.keys.size(); ++i) {
    if (node_.keys[i].name == key) return &node_.values[i];
  }
  return nullptr;
}

const YamlNode* MappingReader::Require(std::string_view key) {
  const YamlNode* value = Find(key);
  if (value == nullptr && is_mapping_) {
    errors_->Add(node_.where, "missing key '{}' in {}", key, what_);
  }
  return value;
}

std::string MappingReader::String(std::string_view key, std::string fallback) {
  const YamlNode* value = Find(key);
  if (value == nullptr) return fallback;
  return ReadString(*value, Name(key), errors_).value_or(std::move(fallback));
}

std::optional<bool> MappingReader::OptionalBool(std::string_view key) {
  const YamlNode* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (value->kind == YamlNode::Kind::kScalar && !value->quoted) {
    if (value->text == "true") return true;
    if (value->text == "false") return false;
  }
  errors_->Add(value->where, "{} must be true or false, not {}", Name(key), DescribeNode(*value));
  return std::nullopt;
}

bool MappingReader::Bool(std::string_view key, bool fallback) {
  return OptionalBool(key).value_or(fallback);
}

std::optional<int64_t> MappingReader::OptionalInteger(std::string_view key, int64_t min,
                                                      int64_t max) {
  const YamlNode* value = Find(key);
  if (value == nullptr) return std::nullopt;
  return ReadInteger(*value, Name(key), min, max, errors_);
}

int64_t MappingReader::Integer(std::string_view key, int64_t fallback, int64_t min, int64_t max) {
  return OptionalInteger(key, min, max).value_or(fallback);
}

double MappingReader::Number(std::string_view key, double fallback, double min, double max) {
  const YamlNode* value = Find(key);
  if (value == nullptr) return fallback;
  std::optional<double> number;
  if (value->kind == YamlNode::Kind::kScalar && !value->quoted) {
    number = ParseNumber<double>(value->text);
  }
  if (!number || !std::isfinite(*number)) {
    errors_->Add(value->where, "{} must be a number, not {}", Name(key), DescribeNode(*value));
    return fallback;
  }
  if (*number < min || *number > max) {
    errors_->Add(value->where, "{} {}: must be {} to {}", Name(key), *number, min, max);
    return fallback;
  }
  return *number;
}

std::vector<std::pair<std::string, SpecPosition>> MappingReader::Strings(std::string_view key) {
  std::vector<std::pair<std::string, SpecPosition>> strings;
  const YamlNode* value = Find(key);
  if (value == nullptr) return strings;
  const auto add = [&](const YamlNode& node) {
    if (auto text = ReadString(node, Name(key), errors_)) {
      strings.emplace_back(*std::move(text), node.where);
    }
  };
  if (value->kind == YamlNode::Kind::kSequence) {
    if (value->values.empty()) errors_->Add(value->where, "{} is an empty list", Name(key));
    for (const YamlNode& entry : value->values) add(entry);
  } else {
    add(*value);
  }
  return strings;
}

std::vector<const YamlNode*> MappingReader::List(std::string_view key, size_t max_entries) {
  std::vector<const YamlNode*> entries;
  const YamlNode* value = Find(key);
  if (value == nullptr) return entries;
  if (value->kind != YamlNode::Kind::kSequence) {
    errors_->Add(value->where, "{} must be a list, not {}; write [..] or lines beginning with '- '",
                 Name(key), DescribeNode(*value));
    return entries;
  }
  if (value->values.empty()) errors_->Add(value->where, "{} is an empty list", Name(key));
  if (value->values.size() > max_entries) {
    errors_->Add(value->where, "{} has {} entries; at most {} are allowed", Name(key),
                 value->values.size(), max_entries);
    return entries;
  }
  for (const YamlNode& entry : value->values) entries.push_back(&entry);
  return entries;
}

void MappingReader::RefuseUnknownKeys() {
  if (!is_mapping_) return;
  for (const YamlNode::Key& key : node_.keys) {
    if (std::find(known_.begin(), known_.end(), key.name) != known_.end()) continue;
    const std::string hint = DidYouMean(key.name, known_);
    std::vector<std::string> known = known_;
    std::sort(known.begin(), known.end());
    errors_->Add(key.where, "unknown key '{}' in {}{}", Shorten(key.name), what_,
                 hint.empty() ? fmt::format("; known are {}", fmt::join(known, ", ")) : hint);
  }
}

}  // namespace assay::coordinator
