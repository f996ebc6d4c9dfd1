// Reading a YAML mapping key by key, collecting errors instead of stopping at the first.
//
// A key that was asked for is a known key; RefuseUnknownKeys() reports the others. So the grammar
// is the code that reads it, and nothing else has to be kept in step.
#pragma once

#include <absl/status/status.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "coordinator/spec/yaml_tree.h"

namespace assay::coordinator {

// Everything that is wrong with one file.
class SpecErrors {
 public:
  explicit SpecErrors(std::string file_name) : file_name_(std::move(file_name)) {}

  template <typename... Args>
  void Add(SpecPosition where, fmt::format_string<Args...> format, Args&&... args) {
    AddMessage(where, fmt::format(format, std::forward<Args>(args)...));
  }
  void AddMessage(SpecPosition where, std::string message);

  bool empty() const { return errors_.empty(); }
  // INVALID_ARGUMENT with one line per error in file order, at most twenty; OK without errors.
  absl::Status status() const;

 private:
  struct Error {
    SpecPosition where;
    std::string message;
  };
  const std::string file_name_;
  std::vector<Error> errors_;
};

// "the string 'abc'", "a list", "nothing": what an error says was found.
std::string DescribeNode(const YamlNode& node);

// Scalars. Each reports what it expected and returns nothing when the node is something else.
std::optional<std::string> ReadString(const YamlNode& node, std::string_view what,
                                      SpecErrors* errors);
std::optional<int64_t> ReadInteger(const YamlNode& node, std::string_view what, int64_t min,
                                   int64_t max, SpecErrors* errors);

class MappingReader {
 public:
  // `what` is how errors call the mapping: "sweep", "model". A node that is no mapping is reported
  // and reads as empty. Node and errors outlive the reader.
  MappingReader(const YamlNode& node, std::string what, SpecErrors* errors);

  bool is_mapping() const { return is_mapping_; }
  SpecPosition where() const { return node_.where; }

  // The value of a key, or null. Makes the key a known one.
  const YamlNode* Find(std::string_view key);
  // The same; reports a missing key.
  const YamlNode* Require(std::string_view key);

  // The value, or the fallback when the key is absent or its value is wrong (reported).
  std::string String(std::string_view key, std::string fallback = "");
  bool Bool(std::string_view key, bool fallback);
  int64_t Integer(std::string_view key, int64_t fallback, int64_t min, int64_t max);
  double Number(std::string_view key, double fallback, double min, double max);
  std::optional<bool> OptionalBool(std::string_view key);
  std::optional<int64_t> OptionalInteger(std::string_view key, int64_t min, int64_t max);

  // One string or a list of strings; empty when absent.
  std::vector<std::pair<std::string, SpecPosition>> Strings(std::string_view key);
  // The entries of a list that must not be empty; a scalar or mapping is not a list. Empty when
  // absent or wrong.
  std::vector<const YamlNode*> List(std::string_view key, size_t max_entries);

  void RefuseUnknownKeys();

 private:
  std::string Name(std::string_view key) const;

  const YamlNode& node_;
  const std::string what_;
  SpecErrors* const errors_;
  bool is_mapping_;
  std::vector<std::string> known_;
};

}  // namespace assay::coordinator
