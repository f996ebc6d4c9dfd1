#include "engine/tokenizer/jinja_value.h"

#include <fmt/format.h>

#include <cmath>

#include "engine/tokenizer/unicode.h"

namespace assay::engine::jinja {
namespace {

// Nested lists and dicts deeper than this print as "...": values come from templates.
constexpr int kMaxPrintedDepth = 64;

// Python's repr of a string: single quotes unless it holds some and no double ones.
std::string ReprString(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string repr(1, quote);
  for (const char c : text) {
    if (c == quote || c == '\\') {
      repr += {'\\', c};
    } else if (c == '\n') {
      repr += "\\n";
    } else if (c == '\r') {
      repr += "\\r";
    } else if (c == '\t') {
      repr += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      repr += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      repr += c;
    }
  }
  return repr + quote;
}

std::string JsonString(std::string_view text) {
  std::string json = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        json += "\\\"";
        break;
      case '\\':
        json += "\\\\";
        break;
      case '\n':
        json += "\\n";
        break;
      case '\r':
        json += "\\r";
        break;
      case '\t':
        json += "\\t";
        break;
      case '\b':
        json += "\\b";
        break;
      case '\f':
        json += "\\f";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          json += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
        } else {
          json += c;
        }
    }
  }
  return json + "\"";
}

// Python prints the shortest digits that read back, with a point or an exponent.
std::string FloatText(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

std::string Repr(const Value& value, int depth);

template <typename Items, typename Print>
std::string Joined(const Items& items, const Print& print) {
  std::string text;
  for (const auto& item : items) {
    if (!text.empty()) text += ", ";
    text += print(item);
  }
  return text;
}

std::string ReprDict(const Dict& dict, int depth) {
  return "{" +
         Joined(dict,
                [depth](const auto& member) {
                  return ReprString(member.first) + ": " + Repr(member.second, depth + 1);
                }) +
         "}";
}

std::string Repr(const Value& value, int depth) {
  if (depth > kMaxPrintedDepth) return "...";
  if (const std::string* const text = value.AsString()) return ReprString(*text);
  if (const List* const list = value.AsList()) {
    return "[" + Joined(*list, [depth](const Value& item) { return Repr(item, depth + 1); }) + "]";
  }
  if (const Dict* const dict = value.AsDict()) return ReprDict(*dict, depth);
  if (const Namespace* const members = value.AsNamespace()) {
    return "<Namespace " + ReprDict(members->members, depth) + ">";
  }
  return ToText(value);
}

std::string Json(const Value& value, int indent, int depth) {
  if (depth > kMaxPrintedDepth) return "null";
  const auto line = [indent](int level) {
    return indent < 0 ? std::string()
                      : "\n" + std::string(static_cast<size_t>(indent * level), ' ');
  };
  const char* const comma = indent < 0 ? ", " : ",";
  if (value.IsNone() || value.IsUndefined()) return "null";
  if (const bool* const flag = value.As<bool>()) return *flag ? "true" : "false";
  if (value.IsNumber()) return ToText(value);
  if (const List* const list = value.AsList()) {
    if (list->empty()) return "[]";
    std::string json = "[";
    for (size_t i = 0; i < list->size(); ++i) {
      json += (i == 0 ? "" : comma) + line(depth + 1) + Json((*list)[i], indent, depth + 1);
    }
    return json + line(depth) + "]";
  }
  if (const Dict* const dict = value.AsDict()) {
    if (dict->empty()) return "{}";
    std::string json = "{";
    for (size_t i = 0; i < dict->size(); ++i) {
      json += (i == 0 ? "" : comma) + line(depth + 1) + JsonString((*dict)[i].first) + ": " +
              Json((*dict)[i].second, indent, depth + 1);
    }
    return json + line(depth) + "}";
  }
  return JsonString(ToText(value));
}

}  // namespace

Value Value::Of(std::string text) {
  return Value(Storage(std::make_shared<const std::string>(std::move(text))));
}
Value Value::Of(List list) { return Value(Storage(std::make_shared<const List>(std::move(list)))); }
Value Value::Of(Dict dict) { return Value(Storage(std::make_shared<const Dict>(std::move(dict)))); }

double Value::AsDouble() const {
  if (const double* const value = As<double>()) return *value;
  int64_t integer = 0;
  GetInteger(&integer);
  return static_cast<double>(integer);
}

bool Value::GetInteger(int64_t* integer) const {
  if (const int64_t* const value = As<int64_t>()) {
    *integer = *value;
    return true;
  }
  if (const bool* const flag = As<bool>()) {
    *integer = *flag ? 1 : 0;
    return true;
  }
  return false;
}

bool Value::IsTrue() const {
  if (IsUndefined() || IsNone()) return false;
  if (IsNumber()) return AsDouble() != 0;
  if (const std::string* const text = AsString()) return !text->empty();
  if (const List* const list = AsList()) return !list->empty();
  if (const Dict* const dict = AsDict()) return !dict->empty();
  return true;
}

std::string Value::TypeName() const {
  if (const Undefined* const missing = As<Undefined>()) {
    return missing->name.empty() ? "an undefined value"
                                 : "'" + missing->name + "', which is undefined";
  }
  if (IsNone()) return "none";
  if (As<bool>()) return "a boolean";
  if (As<int64_t>()) return "an integer";
  if (As<double>()) return "a float";
  if (AsString()) return "a string";
  if (AsList()) return "a list";
  if (AsDict()) return "a dict";
  if (AsNamespace()) return "a namespace";
  return "a function";
}

const Value* FindMember(const Dict& dict, std::string_view key) {
  for (const auto& [name, value] : dict) {
    if (name == key) return &value;
  }
  return nullptr;
}

void SetMember(Dict* dict, const std::string& key, Value value) {
  for (auto& [name, member] : *dict) {
    if (name == key) {
      member = std::move(value);
      return;
    }
  }
  dict->emplace_back(key, std::move(value));
}

bool Equal(const Value& a, const Value& b) {
  if (a.IsNumber() && b.IsNumber()) {
    int64_t left, right;
    if (a.GetInteger(&left) && b.GetInteger(&right)) return left == right;
    return a.AsDouble() == b.AsDouble();
  }
  if (a.AsString() && b.AsString()) return *a.AsString() == *b.AsString();
  if (a.AsList() && b.AsList()) {
    if (a.AsList() == b.AsList()) return true;
    if (a.AsList()->size() != b.AsList()->size()) return false;
    for (size_t i = 0; i < a.AsList()->size(); ++i) {
      if (!Equal((*a.AsList())[i], (*b.AsList())[i])) return false;
    }
    return true;
  }
  if (a.AsDict() && b.AsDict()) {
    if (a.AsDict()->size() != b.AsDict()->size()) return false;
    for (const auto& [key, value] : *a.AsDict()) {
      const Value* const other = FindMember(*b.AsDict(), key);
      if (other == nullptr || !Equal(value, *other)) return false;
    }
    return true;
  }
  if (a.AsNamespace() || b.AsNamespace()) return a.AsNamespace() == b.AsNamespace();
  return (a.IsNone() && b.IsNone()) || (a.IsUndefined() && b.IsUndefined());
}

bool Compare(const Value& a, const Value& b, int* order) {
  if (a.IsNumber() && b.IsNumber()) {
    int64_t left, right;
    if (a.GetInteger(&left) && b.GetInteger(&right)) {
      *order = left < right ? -1 : left > right;
    } else {
      *order = a.AsDouble() < b.AsDouble() ? -1 : a.AsDouble() > b.AsDouble();
    }
    return true;
  }
  if (a.AsString() == nullptr || b.AsString() == nullptr) return false;
  // The order of UTF-8 bytes is that of code points.
  const int difference = a.AsString()->compare(*b.AsString());
  *order = difference < 0 ? -1 : difference > 0;
  return true;
}

std::string ToText(const Value& value) {
  if (const std::string* const text = value.AsString()) return *text;
  if (value.IsUndefined()) return {};
  if (value.IsNone()) return "None";
  if (const bool* const flag = value.As<bool>()) return *flag ? "True" : "False";
  if (const int64_t* const integer = value.As<int64_t>()) return fmt::format("{}", *integer);
  if (const double* const number = value.As<double>()) return FloatText(*number);
  if (const Function* const function = value.As<Function>()) {
    return "<function " + function->name + ">";
  }
  if (value.As<Macro>()) return "<Macro>";
  return Repr(value, 0);
}

std::string ToRepr(const Value& value) { return Repr(value, 0); }

std::string ToJson(const Value& value, int indent) { return Json(value, indent, 0); }

size_t NumChars(std::string_view text) {
  size_t num_chars = 0;
  for (const char byte : text) num_chars += (static_cast<uint8_t>(byte) & 0xC0) != 0x80;
  return num_chars;
}

size_t CharOffset(std::string_view text, size_t index) {
  size_t i = 0;
  for (; i < text.size() && index > 0; --index) i += DecodeChar(text.data() + i).num_bytes;
  return i;
}

bool IsPythonSpace(char32_t code_point) {
  return (CharClasses::Get()[code_point] & kSpace) || (code_point >= 0x1C && code_point <= 0x1F);
}

std::string_view Strip(std::string_view text, std::string_view chars, Side side) {
  const auto strips = [chars](std::string_view at) {
    const DecodedChar c = DecodeChar(at.data());
    return chars.empty() ? IsPythonSpace(c.code_point)
                         : chars.find(at.substr(0, c.num_bytes)) != std::string_view::npos;
  };
  while (side != Side::kRight && !text.empty() && strips(text)) {
    text.remove_prefix(DecodeChar(text.data()).num_bytes);
  }
  while (side != Side::kLeft && !text.empty()) {
    size_t last = text.size() - 1;
    while (last > 0 && (static_cast<uint8_t>(text[last]) & 0xC0) == 0x80) --last;
    if (!strips(text.substr(last))) break;
    text.remove_suffix(text.size() - last);
  }
  return text;
}

}  // namespace assay::engine::jinja
