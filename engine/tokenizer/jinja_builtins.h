// Filters, tests and methods: pure functions of values. The names are those that published chat
// templates use; a name that is missing here is an error when the template is parsed.
#pragma once

#include <absl/status/statusor.h>

#include <string_view>
#include <utility>
#include <vector>

#include "engine/tokenizer/jinja_value.h"

namespace assay::engine::jinja {

// No value may grow beyond this, in bytes of a string or items of a list.
inline constexpr size_t kMaxStringBytes = 64 << 20;
inline constexpr size_t kMaxListItems = 1 << 18;

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keywords;

  // The argument at a place or of a name; null when it is not given.
  const Value* Get(size_t index, std::string_view name) const;
};

bool IsFilter(std::string_view name);
bool IsTest(std::string_view name);

// Errors are INVALID_ARGUMENT without a position: the caller knows it.
absl::StatusOr<Value> ApplyFilter(std::string_view name, const Value& input,
                                  const Arguments& arguments);
absl::StatusOr<bool> ApplyTest(std::string_view name, const Value& input,
                               const Arguments& arguments);

// object.name(arguments). NOT_FOUND when objects of this type have no such method.
absl::StatusOr<Value> CallMethod(const Value& object, std::string_view name,
                                 const Arguments& arguments);

// The items that a loop over `value` visits: of a list, the keys of a dict, the characters of a
// string, nothing of an undefined value.
absl::StatusOr<List> Items(const Value& value);

// operator "in".
absl::StatusOr<bool> Contains(const Value& container, const Value& item);

}  // namespace assay::engine::jinja
