// Values of the template interpreter: Python's, as far as chat templates use them.
//
// Copies are cheap: strings, lists and dicts are shared and never change once made; a namespace is
// the one thing that does. Strings are UTF-8 and count in characters.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace assay::engine::jinja {

class Value;
struct Stmt;

struct None {};

// What a name stands for that nobody set. Prints as nothing, is false, and refuses the rest.
struct Undefined {
  std::string name;  // for messages
};

// A function the interpreter knows (raise_exception, namespace, range).
struct Function {
  std::string name;
};

struct Macro {
  const Stmt* definition;
  size_t num_frames;  // of variables that it sees: those around its definition
};

using List = std::vector<Value>;
using Dict = std::vector<std::pair<std::string, Value>>;  // in order of insertion

struct Namespace {
  Dict members;
};

class Value {
 public:
  using Storage =
      std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const std::string>,
                   std::shared_ptr<const List>, std::shared_ptr<const Dict>,
                   std::shared_ptr<Namespace>, Function, Macro>;

  Value() : storage_(Undefined{}) {}
  explicit Value(Storage storage) : storage_(std::move(storage)) {}

  static Value Missing(std::string name) { return Value(Storage(Undefined{std::move(name)})); }
  static Value OfNone() { return Value(Storage(None{})); }
  static Value Of(bool value) { return Value(Storage(value)); }
  static Value Of(int64_t value) { return Value(Storage(value)); }
  static Value Of(double value) { return Value(Storage(value)); }
  static Value Of(std::string text);
  static Value Of(const char* text) = delete;  // would be a bool
  static Value Of(List list);
  static Value Of(Dict dict);

  // The value as a T of Storage, or null.
  template <typename T>
  const T* As() const {
    return std::get_if<T>(&storage_);
  }
  const std::string* AsString() const { return Shared<std::string>(); }
  const List* AsList() const { return Shared<List>(); }
  const Dict* AsDict() const { return Shared<Dict>(); }
  Namespace* AsNamespace() const {
    const auto* const pointer = As<std::shared_ptr<Namespace>>();
    return pointer == nullptr ? nullptr : pointer->get();
  }
  bool IsUndefined() const { return As<Undefined>() != nullptr; }
  bool IsNone() const { return As<None>() != nullptr; }
  bool IsNumber() const { return As<int64_t>() || As<double>() || As<bool>(); }
  // Of a number; booleans are 0 and 1.
  double AsDouble() const;
  // Of an integer or boolean.
  bool GetInteger(int64_t* integer) const;

  bool IsTrue() const;
  // For messages: "a string", "an undefined value".
  std::string TypeName() const;

 private:
  template <typename T>
  const T* Shared() const {
    const auto* const pointer = As<std::shared_ptr<const T>>();
    return pointer == nullptr ? nullptr : pointer->get();
  }

  Storage storage_;
};

// The member of a dict or namespace, or null.
const Value* FindMember(const Dict& dict, std::string_view key);
void SetMember(Dict* dict, const std::string& key, Value value);

bool Equal(const Value& a, const Value& b);

// -1, 0 or 1 in *order; false when the two do not compare.
bool Compare(const Value& a, const Value& b, int* order);

// As Python's str() and repr(), and json.dumps(ensure_ascii=False). `indent` < 0: on one line.
std::string ToText(const Value& value);
std::string ToRepr(const Value& value);
std::string ToJson(const Value& value, int indent);

// Strings as sequences of characters.
size_t NumChars(std::string_view text);
// The byte offset of character `index`, or the size.
size_t CharOffset(std::string_view text, size_t index);

// What Python calls white space.
bool IsPythonSpace(char32_t code_point);
enum class Side { kLeft, kRight, kBoth };
// Without the characters of `chars` (empty: white space) on one or both sides.
std::string_view Strip(std::string_view text, std::string_view chars, Side side);

}  // namespace assay::engine::jinja
