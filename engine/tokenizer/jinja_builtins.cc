#include "engine/tokenizer/jinja_builtins.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "base/status.h"
#include "engine/tokenizer/unicode.h"

namespace assay::engine::jinja {
namespace {

using Filter = absl::StatusOr<Value> (*)(const Value&, const Arguments&);
using Test = absl::StatusOr<bool> (*)(const Value&, const Arguments&);

absl::Status Cannot(std::string_view verb, const Value& value) {
  return InvalidArgument("cannot {} {}", verb, value.TypeName());
}

absl::StatusOr<Value> Length(const Value& input, const Arguments&) {
  size_t length = 0;
  if (const std::string* const text = input.AsString()) {
    length = NumChars(*text);
  } else if (const List* const list = input.AsList()) {
    length = list->size();
  } else if (const Dict* const dict = input.AsDict()) {
    length = dict->size();
  } else if (!input.IsUndefined()) {
    return Cannot("take the length of", input);
  }
  return Value::Of(static_cast<int64_t>(length));
}

absl::StatusOr<Value> Default(const Value& input, const Arguments& arguments) {
  const Value* const fallback = arguments.Get(0, "default_value");
  const Value* const boolean = arguments.Get(1, "boolean");
  const bool replaces_false = boolean != nullptr && boolean->IsTrue();
  if (!input.IsUndefined() && !(replaces_false && !input.IsTrue())) return input;
  return fallback != nullptr ? *fallback : Value::Of(std::string());
}

absl::StatusOr<Value> ToJsonFilter(const Value& input, const Arguments& arguments) {
  if (input.IsUndefined()) return Cannot("write as JSON", input);
  int64_t indent = -1;
  const Value* const argument = arguments.Get(0, "indent");
  if (argument != nullptr && !argument->IsNone() && !argument->GetInteger(&indent)) {
    return InvalidArgument("tojson: indent is {}, not an integer", argument->TypeName());
  }
  return Value::Of(ToJson(input, static_cast<int>(std::clamp<int64_t>(indent, -1, 16))));
}

absl::StatusOr<Value> Join(const Value& input, const Arguments& arguments) {
  ASSAY_ASSIGN_OR_RETURN(const List items, Items(input));
  const Value* const separator = arguments.Get(0, "d");
  const Value* const attribute = arguments.Get(1, "attribute");
  std::string text;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0 && separator != nullptr) text += ToText(*separator);
    const Value* item = &items[i];
    if (attribute != nullptr) {
      item = item->AsDict() == nullptr ? nullptr : FindMember(*item->AsDict(), ToText(*attribute));
    }
    if (item != nullptr) text += ToText(*item);
    if (text.size() > kMaxStringBytes) return InvalidArgument("join: the text is too long");
  }
  return Value::Of(std::move(text));
}

absl::StatusOr<Value> First(const Value& input, const Arguments&) {
  ASSAY_ASSIGN_OR_RETURN(const List items, Items(input));
  return items.empty() ? Value::Missing("the first of nothing") : items.front();
}

absl::StatusOr<Value> Last(const Value& input, const Arguments&) {
  ASSAY_ASSIGN_OR_RETURN(const List items, Items(input));
  return items.empty() ? Value::Missing("the last of nothing") : items.back();
}

absl::StatusOr<Value> ToList(const Value& input, const Arguments&) {
  ASSAY_ASSIGN_OR_RETURN(List items, Items(input));
  return Value::Of(std::move(items));
}

absl::StatusOr<Value> Reverse(const Value& input, const Arguments&) {
  ASSAY_ASSIGN_OR_RETURN(List items, Items(input));
  std::reverse(items.begin(), items.end());
  if (input.AsString() == nullptr) return Value::Of(std::move(items));
  std::string text;
  for (const Value& character : items) text += *character.AsString();
  return Value::Of(std::move(text));
}

absl::StatusOr<Value> DictItems(const Value& input, const Arguments& arguments) {
  if (input.IsUndefined()) return Value::Of(List());
  if (input.AsDict() == nullptr) return Cannot("take the items of", input);
  return CallMethod(input, "items", arguments);
}

absl::StatusOr<Value> ToInteger(const Value& input, const Arguments& arguments) {
  int64_t integer = 0;
  if (input.GetInteger(&integer)) return Value::Of(integer);
  if (const double* const number = input.As<double>()) {
    if (std::fabs(*number) < 9e18) return Value::Of(static_cast<int64_t>(*number));
  }
  if (const std::string* const text = input.AsString()) {
    const std::string_view digits = Strip(*text, "", Side::kBoth);
    const char* const digits_end = digits.data() + digits.size();
    const auto as_integer = std::from_chars(digits.data(), digits_end, integer);
    if (as_integer.ec == std::errc() && as_integer.ptr == digits_end) return Value::Of(integer);
    double number = 0;
    const auto as_float = std::from_chars(digits.data(), digits_end, number);
    if (as_float.ec == std::errc() && as_float.ptr == digits_end && std::fabs(number) < 9e18) {
      return Value::Of(static_cast<int64_t>(number));
    }
  }
  const Value* const fallback = arguments.Get(0, "default");
  return fallback != nullptr ? *fallback : Value::Of(int64_t{0});
}

absl::StatusOr<Value> Absolute(const Value& input, const Arguments&) {
  int64_t integer = 0;
  if (const double* const number = input.As<double>()) return Value::Of(std::fabs(*number));
  if (!input.GetInteger(&integer)) return Cannot("take the absolute value of", input);
  return Value::Of(integer < 0 && integer != INT64_MIN ? -integer : integer);
}

// Indents every line but the first (or it, too, with first=true); blank lines stay (blank=true).
absl::StatusOr<Value> Indent(const Value& input, const Arguments& arguments) {
  int64_t width = 4;
  const Value* const width_argument = arguments.Get(0, "width");
  if (width_argument != nullptr && !width_argument->GetInteger(&width)) {
    return InvalidArgument("indent: width is {}, not an integer", width_argument->TypeName());
  }
  const auto flag = [&](size_t index, std::string_view name) {
    const Value* const argument = arguments.Get(index, name);
    return argument != nullptr && argument->IsTrue();
  };
  const bool indents_first = flag(1, "first");
  const bool indents_blank = flag(2, "blank");
  const std::string blanks(static_cast<size_t>(std::clamp<int64_t>(width, 0, 256)), ' ');
  const std::string text = ToText(input);
  std::string indented = indents_first ? blanks : "";
  for (size_t i = 0; i < text.size(); ++i) {
    indented += text[i];
    const bool is_blank_line = i + 1 == text.size() || text[i + 1] == '\n';
    if (text[i] == '\n' && (indents_blank || !is_blank_line)) indented += blanks;
    if (indented.size() > kMaxStringBytes) return InvalidArgument("indent: the text is too long");
  }
  return Value::Of(std::move(indented));
}

// Filters that are the method of a string, on the value's text.
template <const char* kMethod>
absl::StatusOr<Value> TextMethod(const Value& input, const Arguments& arguments) {
  return CallMethod(Value::Of(ToText(input)), kMethod, arguments);
}
constexpr char kStrip[] = "strip";
constexpr char kUpper[] = "upper";
constexpr char kLower[] = "lower";
constexpr char kTitle[] = "title";
constexpr char kCapitalize[] = "capitalize";
constexpr char kReplace[] = "replace";

absl::StatusOr<Value> ToStringFilter(const Value& input, const Arguments&) {
  return Value::Of(ToText(input));
}

// What map and select look at: item.attribute, with dots for members of members.
Value AttributeOf(const Value& item, std::string_view path) {
  Value value = item;
  while (!path.empty()) {
    const size_t dot = std::min(path.find('.'), path.size());
    const Dict* const dict = value.AsDict();
    const Value* const member = dict == nullptr ? nullptr : FindMember(*dict, path.substr(0, dot));
    if (member == nullptr) return Value::Missing(std::string(path));
    value = Value(*member);
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  return value;
}

// map("filter", ...) or map(attribute="name").
absl::StatusOr<Value> Map(const Value& input, const Arguments& arguments) {
  ASSAY_ASSIGN_OR_RETURN(List items, Items(input));
  const Value* const attribute = arguments.Get(SIZE_MAX, "attribute");
  const Value* const fallback = arguments.Get(SIZE_MAX, "default");
  Arguments rest;
  std::string filter;
  if (attribute == nullptr) {
    if (arguments.positional.empty()) return InvalidArgument("map: which filter?");
    filter = ToText(arguments.positional[0]);
    if (!IsFilter(filter)) return InvalidArgument("map: unknown filter '{}'", filter);
    rest.positional.assign(arguments.positional.begin() + 1, arguments.positional.end());
    rest.keywords = arguments.keywords;
  }
  for (Value& item : items) {
    if (attribute != nullptr) {
      item = AttributeOf(item, ToText(*attribute));
      if (item.IsUndefined() && fallback != nullptr) item = *fallback;
    } else {
      ASSAY_ASSIGN_OR_RETURN(item, ApplyFilter(filter, item, rest));
    }
  }
  return Value::Of(std::move(items));
}

// select, reject, selectattr, rejectattr: keep the items (or those whose attribute) for which a
// test (or truth) is `wanted`.
template <bool kWanted, bool kByAttribute>
absl::StatusOr<Value> Select(const Value& input, const Arguments& arguments) {
  ASSAY_ASSIGN_OR_RETURN(const List items, Items(input));
  size_t next = 0;
  std::string attribute;
  if (kByAttribute) {
    if (arguments.positional.empty()) return InvalidArgument("select: which attribute?");
    attribute = ToText(arguments.positional[next++]);
  }
  std::string test;
  if (next < arguments.positional.size()) test = ToText(arguments.positional[next++]);
  if (!test.empty() && !IsTest(test)) return InvalidArgument("select: unknown test '{}'", test);
  Arguments rest;
  const auto skip = static_cast<std::ptrdiff_t>(std::min(next, arguments.positional.size()));
  rest.positional.assign(arguments.positional.begin() + skip, arguments.positional.end());
  List selected;
  for (const Value& item : items) {
    const Value subject = kByAttribute ? AttributeOf(item, attribute) : item;
    bool holds = subject.IsTrue();
    if (!test.empty()) {
      ASSAY_ASSIGN_OR_RETURN(holds, ApplyTest(test, subject, rest));
    }
    if (holds == kWanted) selected.push_back(item);
  }
  return Value::Of(std::move(selected));
}

const std::map<std::string_view, Filter>& Filters() {
  static const auto* const kFilters = new std::map<std::string_view, Filter>{
      {"abs", Absolute},
      {"capitalize", TextMethod<kCapitalize>},
      {"count", Length},
      {"d", Default},
      {"default", Default},
      {"first", First},
      {"indent", Indent},
      {"int", ToInteger},
      {"items", DictItems},
      {"join", Join},
      {"last", Last},
      {"length", Length},
      {"list", ToList},
      {"lower", TextMethod<kLower>},
      {"map", Map},
      {"reject", Select<false, false>},
      {"rejectattr", Select<false, true>},
      {"replace", TextMethod<kReplace>},
      {"reverse", Reverse},
      {"safe", ToStringFilter},
      {"select", Select<true, false>},
      {"selectattr", Select<true, true>},
      {"string", ToStringFilter},
      {"title", TextMethod<kTitle>},
      {"tojson", ToJsonFilter},
      {"trim", TextMethod<kStrip>},
      {"upper", TextMethod<kUpper>},
  };
  return *kFilters;
}

// Tests of one value, and those that compare with an argument.
template <auto kPredicate>
absl::StatusOr<bool> Is(const Value& input, const Arguments&) {
  return kPredicate(input);
}

constexpr bool AtLeast(int order) { return order >= 0; }
constexpr bool Above(int order) { return order > 0; }
constexpr bool AtMost(int order) { return order <= 0; }
constexpr bool Below(int order) { return order < 0; }

template <auto kPredicate>
absl::StatusOr<bool> Ordered(const Value& input, const Arguments& arguments) {
  int order = 0;
  if (arguments.positional.size() != 1 || !Compare(input, arguments.positional[0], &order)) {
    return Cannot("compare", input);
  }
  return kPredicate(order);
}

template <bool kWanted>
absl::StatusOr<bool> EqualTo(const Value& input, const Arguments& arguments) {
  if (arguments.positional.size() != 1) return InvalidArgument("the test needs one argument");
  return Equal(input, arguments.positional[0]) == kWanted;
}

template <int kRemainder>
absl::StatusOr<bool> Parity(const Value& input, const Arguments&) {
  int64_t integer;
  if (!input.GetInteger(&integer)) return Cannot("divide", input);
  return std::abs(integer % 2) == kRemainder;
}

absl::StatusOr<bool> DivisibleBy(const Value& input, const Arguments& arguments) {
  int64_t integer, divisor;
  if (arguments.positional.size() != 1 || !input.GetInteger(&integer) ||
      !arguments.positional[0].GetInteger(&divisor) || divisor == 0) {
    return Cannot("divide", input);
  }
  return divisor == -1 || integer % divisor == 0;
}

absl::StatusOr<bool> IsIn(const Value& input, const Arguments& arguments) {
  if (arguments.positional.size() != 1) return InvalidArgument("the test needs one argument");
  return Contains(arguments.positional[0], input);
}

bool IsIterable(const Value& v) {
  return v.AsString() || v.AsList() || v.AsDict() || v.IsUndefined();
}

const std::map<std::string_view, Test>& Tests() {
  static const auto* const kTests = new std::map<std::string_view, Test>{
      {"boolean", Is<[](const Value& v) { return v.As<bool>() != nullptr; }>},
      {"callable", Is<[](const Value& v) { return v.As<Function>() || v.As<Macro>(); }>},
      {"defined", Is<[](const Value& v) { return !v.IsUndefined(); }>},
      {"divisibleby", DivisibleBy},
      {"eq", EqualTo<true>},
      {"equalto", EqualTo<true>},
      {"even", Parity<0>},
      {"false", Is<[](const Value& v) { return v.As<bool>() && !*v.As<bool>(); }>},
      {"float", Is<[](const Value& v) { return v.As<double>() != nullptr; }>},
      {"ge", Ordered<AtLeast>},
      {"gt", Ordered<Above>},
      {"in", IsIn},
      {"integer", Is<[](const Value& v) { return v.As<int64_t>() != nullptr; }>},
      {"iterable", Is<IsIterable>},
      {"le", Ordered<AtMost>},
      {"lt", Ordered<Below>},
      {"mapping", Is<[](const Value& v) { return v.AsDict() != nullptr; }>},
      {"ne", EqualTo<false>},
      {"none", Is<[](const Value& v) { return v.IsNone(); }>},
      {"number", Is<[](const Value& v) { return v.IsNumber(); }>},
      {"odd", Parity<1>},
      {"sequence", Is<IsIterable>},
      {"string", Is<[](const Value& v) { return v.AsString() != nullptr; }>},
      {"true", Is<[](const Value& v) { return v.As<bool>() && *v.As<bool>(); }>},
      {"undefined", Is<[](const Value& v) { return v.IsUndefined(); }>},
  };
  return *kTests;
}

}  // namespace

const Value* Arguments::Get(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [keyword, value] : keywords) {
    if (keyword == name) return &value;
  }
  return nullptr;
}

bool IsFilter(std::string_view name) { return Filters().count(name) != 0; }
bool IsTest(std::string_view name) { return Tests().count(name) != 0; }

absl::StatusOr<Value> ApplyFilter(std::string_view name, const Value& input,
                                  const Arguments& arguments) {
  return Filters().at(name)(input, arguments);
}

absl::StatusOr<bool> ApplyTest(std::string_view name, const Value& input,
                               const Arguments& arguments) {
  return Tests().at(name)(input, arguments);
}

absl::StatusOr<List> Items(const Value& value) {
  if (const List* const list = value.AsList()) return *list;
  List items;
  if (const Dict* const dict = value.AsDict()) {
    for (const auto& [key, member] : *dict) items.push_back(Value::Of(key));
  } else if (const std::string* const text = value.AsString()) {
    if (text->size() > kMaxListItems) return InvalidArgument("a string too long to go through");
    for (size_t i = 0; i < text->size();) {
      const size_t num_bytes = DecodeChar(&(*text)[i]).num_bytes;
      items.push_back(Value::Of(text->substr(i, num_bytes)));
      i += num_bytes;
    }
  } else if (!value.IsUndefined()) {
    return Cannot("go through", value);
  }
  return items;
}

absl::StatusOr<bool> Contains(const Value& container, const Value& item) {
  if (const std::string* const text = container.AsString()) {
    if (item.AsString() == nullptr) return Cannot("look in a string for", item);
    return text->find(*item.AsString()) != std::string::npos;
  }
  if (const Dict* const dict = container.AsDict()) {
    return item.AsString() != nullptr && FindMember(*dict, *item.AsString()) != nullptr;
  }
  if (const List* const list = container.AsList()) {
    return std::any_of(list->begin(), list->end(),
                       [&](const Value& element) { return Equal(element, item); });
  }
  if (container.IsUndefined()) return false;
  return Cannot("look into", container);
}

}  // namespace assay::engine::jinja
