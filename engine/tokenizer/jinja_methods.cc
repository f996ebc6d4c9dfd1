// CallMethod: the methods of strings, lists and dicts, as in Python.
#include <utf8proc.h>

#include <algorithm>
#include <map>

#include "base/status.h"
#include "engine/tokenizer/jinja_builtins.h"
#include "engine/tokenizer/unicode.h"

namespace assay::engine::jinja {
namespace {

using StringMethod = absl::StatusOr<Value> (*)(const std::string&, const Arguments&);

// The argument as a string; null when it is not given or none.
absl::StatusOr<const std::string*> StringArgument(const Arguments& arguments, size_t index,
                                                  std::string_view name) {
  const Value* const argument = arguments.Get(index, name);
  if (argument == nullptr || argument->IsNone()) return nullptr;
  if (argument->AsString() == nullptr) {
    return InvalidArgument("'{}' must be a string, and is {}", name, argument->TypeName());
  }
  return argument->AsString();
}

absl::StatusOr<int64_t> IntegerArgument(const Arguments& arguments, size_t index,
                                        std::string_view name, int64_t fallback) {
  const Value* const argument = arguments.Get(index, name);
  if (argument == nullptr) return fallback;
  int64_t integer = 0;
  if (argument->GetInteger(&integer)) return integer;
  return InvalidArgument("'{}' must be an integer, and is {}", name, argument->TypeName());
}

template <Side kSide>
absl::StatusOr<Value> StripMethod(const std::string& text, const Arguments& arguments) {
  ASSAY_ASSIGN_OR_RETURN(const std::string* const chars, StringArgument(arguments, 0, "chars"));
  if (chars != nullptr && chars->empty()) return Value::Of(text);
  return Value::Of(std::string(Strip(text, chars == nullptr ? "" : *chars, kSide)));
}

// Runs of white space separate, and there are no empty pieces.
List SplitAtSpace(std::string_view text, int64_t max_splits) {
  List pieces;
  text = Strip(text, "", Side::kLeft);
  while (!text.empty()) {
    size_t end = 0;
    while (end < text.size()) {
      const DecodedChar c = DecodeChar(text.data() + end);
      if (IsPythonSpace(c.code_point)) break;
      end += c.num_bytes;
    }
    if (max_splits >= 0 && static_cast<int64_t>(pieces.size()) >= max_splits) {
      pieces.push_back(Value::Of(std::string(text)));
      break;
    }
    pieces.push_back(Value::Of(std::string(text.substr(0, end))));
    text = Strip(text.substr(end), "", Side::kLeft);
  }
  return pieces;
}

absl::StatusOr<Value> Split(const std::string& text, const Arguments& arguments) {
  ASSAY_ASSIGN_OR_RETURN(const std::string* const separator, StringArgument(arguments, 0, "sep"));
  ASSAY_ASSIGN_OR_RETURN(const int64_t max_splits, IntegerArgument(arguments, 1, "maxsplit", -1));
  if (separator == nullptr) return Value::Of(SplitAtSpace(text, max_splits));
  if (separator->empty()) return InvalidArgument("split: the separator is empty");
  List pieces;
  size_t begin = 0;
  while (max_splits < 0 || static_cast<int64_t>(pieces.size()) < max_splits) {
    const size_t end = text.find(*separator, begin);
    if (end == std::string::npos) break;
    pieces.push_back(Value::Of(text.substr(begin, end - begin)));
    begin = end + separator->size();
    if (pieces.size() >= kMaxListItems) return InvalidArgument("split: too many pieces");
  }
  pieces.push_back(Value::Of(text.substr(begin)));
  return Value::Of(std::move(pieces));
}

absl::StatusOr<Value> RightSplit(const std::string& text, const Arguments& arguments) {
  ASSAY_ASSIGN_OR_RETURN(const std::string* const separator, StringArgument(arguments, 0, "sep"));
  ASSAY_ASSIGN_OR_RETURN(const int64_t max_splits, IntegerArgument(arguments, 1, "maxsplit", -1));
  if (separator == nullptr || separator->empty()) {
    return InvalidArgument("rsplit: a separator is needed");
  }
  List pieces;
  size_t end = text.size();
  while (max_splits < 0 || static_cast<int64_t>(pieces.size()) < max_splits) {
    if (end < separator->size()) break;
    const size_t found = text.rfind(*separator, end - separator->size());
    if (found == std::string::npos) break;
    const size_t begin = found + separator->size();
    pieces.push_back(Value::Of(text.substr(begin, end - begin)));
    end = found;
    if (pieces.size() >= kMaxListItems) return InvalidArgument("rsplit: too many pieces");
  }
  pieces.push_back(Value::Of(text.substr(0, end)));
  std::reverse(pieces.begin(), pieces.end());
  return Value::Of(std::move(pieces));
}

absl::StatusOr<Value> SplitLines(const std::string& text, const Arguments&) {
  List lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find_first_of("\r\n", begin), text.size());
    lines.push_back(Value::Of(text.substr(begin, end - begin)));
    begin = end + (text.compare(end, 2, "\r\n") == 0 ? 2 : 1);
    if (lines.size() >= kMaxListItems) return InvalidArgument("splitlines: too many lines");
  }
  return Value::Of(std::move(lines));
}

// Python also takes a tuple of strings, any of which may match.
template <bool kAtStart>
absl::StatusOr<Value> StartsOrEndsWith(const std::string& text, const Arguments& arguments) {
  if (arguments.positional.size() != 1) return InvalidArgument("one argument is needed");
  const Value& argument = arguments.positional[0];
  const List one = {argument};
  for (const Value& piece : argument.AsList() != nullptr ? *argument.AsList() : one) {
    const std::string* const affix = piece.AsString();
    if (affix == nullptr) return InvalidArgument("a string is needed, not {}", piece.TypeName());
    if (affix->size() > text.size()) continue;
    const size_t at = kAtStart ? 0 : text.size() - affix->size();
    if (text.compare(at, affix->size(), *affix) == 0) return Value::Of(true);
  }
  return Value::Of(false);
}

absl::StatusOr<Value> Replace(const std::string& text, const Arguments& arguments) {
  ASSAY_ASSIGN_OR_RETURN(const std::string* const old_text, StringArgument(arguments, 0, "old"));
  ASSAY_ASSIGN_OR_RETURN(const std::string* const new_text, StringArgument(arguments, 1, "new"));
  ASSAY_ASSIGN_OR_RETURN(int64_t num_left, IntegerArgument(arguments, 2, "count", -1));
  if (old_text == nullptr || new_text == nullptr || old_text->empty()) {
    return InvalidArgument("replace: what (not empty) and by what is needed");
  }
  std::string replaced;
  size_t begin = 0;
  for (; num_left != 0; --num_left) {
    const size_t found = text.find(*old_text, begin);
    if (found == std::string::npos) break;
    replaced.append(text, begin, found - begin);
    replaced += *new_text;
    begin = found + old_text->size();
    if (replaced.size() > kMaxStringBytes) return InvalidArgument("replace: the text is too long");
  }
  replaced.append(text, begin);
  return Value::Of(std::move(replaced));
}

absl::StatusOr<Value> Find(const std::string& text, const Arguments& arguments) {
  ASSAY_ASSIGN_OR_RETURN(const std::string* const piece, StringArgument(arguments, 0, "sub"));
  if (piece == nullptr) return InvalidArgument("find: what?");
  const size_t found = text.find(*piece);
  if (found == std::string::npos) return Value::Of(int64_t{-1});
  return Value::Of(static_cast<int64_t>(NumChars(std::string_view(text).substr(0, found))));
}

absl::StatusOr<Value> Count(const std::string& text, const Arguments& arguments) {
  ASSAY_ASSIGN_OR_RETURN(const std::string* const piece, StringArgument(arguments, 0, "sub"));
  if (piece == nullptr || piece->empty()) return InvalidArgument("count: of what?");
  int64_t count = 0;
  for (size_t i = text.find(*piece); i != std::string::npos;
       i = text.find(*piece, i + piece->size())) {
    ++count;
  }
  return Value::Of(count);
}

absl::StatusOr<Value> JoinMethod(const std::string& text, const Arguments& arguments) {
  if (arguments.positional.size() != 1) return InvalidArgument("join: of what?");
  Arguments separator;
  separator.positional.push_back(Value::Of(text));
  return ApplyFilter("join", arguments.positional[0], separator);
}

enum class Case { kLower, kUpper, kTitle, kCapitalize };

template <Case kCase>
absl::StatusOr<Value> ChangeCase(const std::string& text, const Arguments&) {
  std::string changed;
  bool in_word = false;  // kCapitalize: behind the first character
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = DecodeChar(&text[i]);
    i += c.num_bytes;
    const auto code_point = static_cast<utf8proc_int32_t>(c.code_point);
    if (kCase != Case::kLower && c.code_point == 0xDF && !(kCase != Case::kUpper && in_word)) {
      changed += kCase == Case::kUpper ? "SS" : "Ss";  // Python knows no capital sharp s
      in_word = true;
      continue;
    }
    const bool raises = kCase == Case::kUpper || (kCase != Case::kLower && !in_word);
    AppendUtf8(
        static_cast<char32_t>(raises ? utf8proc_toupper(code_point) : utf8proc_tolower(code_point)),
        &changed);
    in_word = kCase != Case::kTitle || (CharClasses::Get()[c.code_point] & kLetter) != 0;
  }
  return Value::Of(std::move(changed));
}

const std::map<std::string_view, StringMethod>& StringMethods() {
  static const auto* const kMethods = new std::map<std::string_view, StringMethod>{
      {"capitalize", ChangeCase<Case::kCapitalize>},
      {"count", Count},
      {"endswith", StartsOrEndsWith<false>},
      {"find", Find},
      {"join", JoinMethod},
      {"lower", ChangeCase<Case::kLower>},
      {"lstrip", StripMethod<Side::kLeft>},
      {"replace", Replace},
      {"rsplit", RightSplit},
      {"rstrip", StripMethod<Side::kRight>},
      {"split", Split},
      {"splitlines", SplitLines},
      {"startswith", StartsOrEndsWith<true>},
      {"strip", StripMethod<Side::kBoth>},
      {"title", ChangeCase<Case::kTitle>},
      {"upper", ChangeCase<Case::kUpper>},
  };
  return *kMethods;
}

absl::StatusOr<Value> DictMethod(const Dict& dict, std::string_view name,
                                 const Arguments& arguments) {
  if (name == "get") {
    const Value* const key = arguments.Get(0, "key");
    if (key == nullptr) return InvalidArgument("get: of what?");
    const Value* const member =
        key->AsString() == nullptr ? nullptr : FindMember(dict, *key->AsString());
    const Value* const fallback = arguments.Get(1, "default");
    if (member != nullptr) return *member;
    return fallback != nullptr ? *fallback : Value::OfNone();
  }
  List list;
  for (const auto& [key, value] : dict) {
    if (name == "keys") list.push_back(Value::Of(key));
    if (name == "values") list.push_back(value);
    if (name == "items") list.push_back(Value::Of(List{Value::Of(key), value}));
  }
  return Value::Of(std::move(list));
}

bool IsDictMethod(std::string_view name) {
  return name == "get" || name == "items" || name == "keys" || name == "values";
}

}  // namespace

absl::StatusOr<Value> CallMethod(const Value& object, std::string_view name,
                                 const Arguments& arguments) {
  if (const std::string* const text = object.AsString()) {
    const auto method = StringMethods().find(name);
    if (method != StringMethods().end()) return method->second(*text, arguments);
  }
  if (const Dict* const dict = object.AsDict(); dict != nullptr && IsDictMethod(name)) {
    return DictMethod(*dict, name, arguments);
  }
  return NotFound("{} has no method '{}'", object.TypeName(), name);
}

}  // namespace assay::engine::jinja
