#include <algorithm>
#include <cmath>

#include "base/status.h"
#include "engine/tokenizer/jinja_interpreter.h"
#include "engine/tokenizer/unicode.h"

namespace assay::engine::jinja {
namespace {

// Depth of recursion. Runner threads have 8 MiB of stack and a sanitizer makes frames large.
constexpr int kMaxDepth = 600;
constexpr int kMaxMacroCalls = 16;

// A library status with the place where it happened.
absl::Status At(const Expr& expr, const absl::Status& status) {
  return ErrorAt(expr.position, Message(status));
}

absl::Status BadOperands(const Expr& expr, std::string_view op, const Value& a, const Value& b) {
  return ErrorAt(expr.position,
                 fmt::format("cannot apply '{}' to {} and {}", op, a.TypeName(), b.TypeName()));
}

int64_t FloorDivide(int64_t a, int64_t b) { return a / b - ((a % b != 0) && ((a < 0) != (b < 0))); }

// Arithmetic of two integers, as in Python but for its unbounded range.
absl::StatusOr<Value> IntegerArithmetic(const Expr& expr, int64_t a, int64_t b) {
  const std::string& op = expr.name;
  int64_t result = 0;
  bool overflows = false;
  if (op == "+") {
    overflows = __builtin_add_overflow(a, b, &result);
  } else if (op == "-") {
    overflows = __builtin_sub_overflow(a, b, &result);
  } else if (op == "*") {
    overflows = __builtin_mul_overflow(a, b, &result);
  } else if (op == "**" && b >= 0) {
    result = 1;
    for (int64_t i = 0; i < b && !overflows && a != 1 && a != 0; ++i) {
      overflows = __builtin_mul_overflow(result, a, &result) || i > 64;
    }
    if (a == 0 && b > 0) result = 0;
  } else if (op == "**") {
    return Value::Of(std::pow(static_cast<double>(a), static_cast<double>(b)));
  } else {  // / // %
    if (b == 0) return ErrorAt(expr.position, "division by zero");
    if (op == "/") return Value::Of(static_cast<double>(a) / static_cast<double>(b));
    if (a == INT64_MIN && b == -1) {
      overflows = true;
    } else {
      result = op == "//" ? FloorDivide(a, b) : a - FloorDivide(a, b) * b;
    }
  }
  if (overflows) return ErrorAt(expr.position, "the number is too large");
  return Value::Of(result);
}

absl::StatusOr<Value> FloatArithmetic(const Expr& expr, double a, double b) {
  const std::string& op = expr.name;
  if (op == "+") return Value::Of(a + b);
  if (op == "-") return Value::Of(a - b);
  if (op == "*") return Value::Of(a * b);
  if (op == "**") return Value::Of(std::pow(a, b));
  if (b == 0) return ErrorAt(expr.position, "division by zero");
  if (op == "/") return Value::Of(a / b);
  const double floor = std::floor(a / b);
  return Value::Of(op == "//" ? floor : a - floor * b);
}

// Start, stop and step of a slice over `size` items, as Python bounds them: a range of indices.
struct SliceRange {
  int64_t start;
  int64_t stop;
  int64_t step;
};

SliceRange BoundSlice(const int64_t* start, const int64_t* stop, int64_t step, int64_t size) {
  const int64_t low = step > 0 ? 0 : -1;
  const int64_t high = step > 0 ? size : size - 1;
  const auto bound = [&](const int64_t* index, int64_t fallback) {
    if (index == nullptr) return fallback;
    return std::clamp(*index < 0 ? *index + size : *index, low, high);
  };
  return {bound(start, step > 0 ? low : high), bound(stop, step > 0 ? high : low), step};
}

}  // namespace

absl::StatusOr<Value> Interpreter::Evaluate(const Expr& expr) {
  ASSAY_RETURN_IF_ERROR(Charge(expr.position, 0));
  if (depth_ >= kMaxDepth) return ErrorAt(expr.position, "calls are nested too deeply");
  ++depth_;
  absl::StatusOr<Value> value = EvaluateKind(expr);
  --depth_;
  if (value.ok() && value->AsString() != nullptr && expr.kind != Expr::Kind::kLiteral &&
      expr.kind != Expr::Kind::kName) {
    ASSAY_RETURN_IF_ERROR(Charge(expr.position, value->AsString()->size()));
  }
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateKind(const Expr& expr) {
  const auto operand = [&](size_t i) { return Evaluate(*expr.operands[i]); };
  switch (expr.kind) {
    case Expr::Kind::kLiteral:
      return expr.literal;
    case Expr::Kind::kName: {
      const Value* const value = Lookup(expr.name);
      return value != nullptr ? *value : Value::Missing(expr.name);
    }
    case Expr::Kind::kList: {
      List items;
      for (const ExprPtr& item : expr.operands) {
        ASSAY_ASSIGN_OR_RETURN(Value value, Evaluate(*item));
        ASSAY_RETURN_IF_ERROR(CheckMember(item->position, value, 0));
        items.push_back(std::move(value));
      }
      return Value::Of(std::move(items));
    }
    case Expr::Kind::kDict:
      return DictOf(expr);
    case Expr::Kind::kNot: {
      ASSAY_ASSIGN_OR_RETURN(const Value value, operand(0));
      return Value::Of(!value.IsTrue());
    }
    case Expr::Kind::kNegate:
    case Expr::Kind::kPlus:
      return Negate(expr);
    case Expr::Kind::kAnd:
    case Expr::Kind::kOr: {
      ASSAY_ASSIGN_OR_RETURN(Value left, operand(0));
      if (left.IsTrue() == (expr.kind == Expr::Kind::kOr)) return left;
      return operand(1);
    }
    case Expr::Kind::kBinary:
      return Binary(expr);
    case Expr::Kind::kCompare:
      return Comparison(expr);
    case Expr::Kind::kConditional: {
      ASSAY_ASSIGN_OR_RETURN(const Value condition, operand(1));
      if (condition.IsTrue()) return operand(0);
      return expr.operands.size() > 2 ? operand(2) : Value::Missing("an if without else");
    }
    case Expr::Kind::kAttribute: {
      ASSAY_ASSIGN_OR_RETURN(const Value object, operand(0));
      absl::StatusOr<Value> value = Attribute(object, expr.name);
      return value.ok() ? value : At(expr, value.status());
    }
    case Expr::Kind::kSubscript:
      return Subscript(expr);
    case Expr::Kind::kSlice:
      return Slice(expr);
    case Expr::Kind::kCall:
      return Call(expr);
    case Expr::Kind::kFilter: {
      ASSAY_ASSIGN_OR_RETURN(const Value input, operand(0));
      ASSAY_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expr));
      absl::StatusOr<Value> value = ApplyFilter(expr.name, input, arguments);
      return value.ok() ? value : At(expr, value.status());
    }
    case Expr::Kind::kTest: {
      ASSAY_ASSIGN_OR_RETURN(const Value input, operand(0));
      ASSAY_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expr));
      const absl::StatusOr<bool> holds = ApplyTest(expr.name, input, arguments);
      if (!holds.ok()) return At(expr, holds.status());
      return Value::Of(*holds);
    }
  }
  return ErrorAt(expr.position, "an unknown expression");
}

absl::StatusOr<Value> Interpreter::DictOf(const Expr& expr) {
  Dict dict;
  for (size_t i = 0; i + 1 < expr.operands.size(); i += 2) {
    ASSAY_ASSIGN_OR_RETURN(const Value key, Evaluate(*expr.operands[i]));
    ASSAY_ASSIGN_OR_RETURN(Value value, Evaluate(*expr.operands[i + 1]));
    ASSAY_RETURN_IF_ERROR(CheckMember(expr.position, value, 0));
    if (key.AsString() == nullptr) {
      return ErrorAt(expr.position, fmt::format("a key is {}, not a string", key.TypeName()));
    }
    SetMember(&dict, *key.AsString(), std::move(value));
  }
  return Value::Of(std::move(dict));
}

absl::StatusOr<Value> Interpreter::Negate(const Expr& expr) {
  ASSAY_ASSIGN_OR_RETURN(const Value value, Evaluate(*expr.operands[0]));
  if (!value.IsNumber()) {
    return ErrorAt(expr.position, fmt::format("cannot give {} a sign", value.TypeName()));
  }
  if (expr.kind == Expr::Kind::kPlus) return value;
  int64_t integer;
  if (!value.GetInteger(&integer)) return Value::Of(-value.AsDouble());
  if (integer == INT64_MIN) return ErrorAt(expr.position, "the number is too large");
  return Value::Of(-integer);
}

absl::StatusOr<Value> Interpreter::Binary(const Expr& expr) {
  ASSAY_ASSIGN_OR_RETURN(const Value a, Evaluate(*expr.operands[0]));
  ASSAY_ASSIGN_OR_RETURN(const Value b, Evaluate(*expr.operands[1]));
  const std::string& op = expr.name;
  if (op == "~" || (op == "+" && a.AsString() && b.AsString())) {
    std::string text = ToText(a);
    text += ToText(b);
    if (text.size() > kMaxStringBytes) return ErrorAt(expr.position, "the text is too long");
    return Value::Of(std::move(text));
  }
  if (op == "+" && a.AsList() && b.AsList()) {
    List items = *a.AsList();
    items.insert(items.end(), b.AsList()->begin(), b.AsList()->end());
    if (items.size() > kMaxListItems) return ErrorAt(expr.position, "the list is too long");
    ASSAY_RETURN_IF_ERROR(Charge(expr.position, items.size() * sizeof(Value)));
    return Value::Of(std::move(items));
  }
  int64_t left, right;
  if (op == "*" && a.AsString() && b.GetInteger(&right)) {
    const auto times = static_cast<size_t>(std::clamp<int64_t>(right, 0, kMaxStringBytes + 1));
    if (a.AsString()->size() * times > kMaxStringBytes) {
      return ErrorAt(expr.position, "the text is too long");
    }
    std::string text;
    for (size_t i = 0; i < times && !a.AsString()->empty(); ++i) text += *a.AsString();
    return Value::Of(std::move(text));
  }
  if (a.GetInteger(&left) && b.GetInteger(&right)) return IntegerArithmetic(expr, left, right);
  if (a.IsNumber() && b.IsNumber()) return FloatArithmetic(expr, a.AsDouble(), b.AsDouble());
  return BadOperands(expr, op, a, b);
}

absl::StatusOr<Value> Interpreter::Comparison(const Expr& expr) {
  ASSAY_ASSIGN_OR_RETURN(Value left, Evaluate(*expr.operands[0]));
  for (size_t i = 0; i < expr.operators.size(); ++i) {
    const std::string& op = expr.operators[i];
    ASSAY_ASSIGN_OR_RETURN(Value right, Evaluate(*expr.operands[i + 1]));
    bool holds = false;
    if (op == "==" || op == "!=") {
      holds = Equal(left, right) == (op == "==");
    } else if (op == "in" || op == "not in") {
      const absl::StatusOr<bool> is_in = Contains(right, left);
      if (!is_in.ok()) return At(expr, is_in.status());
      holds = *is_in == (op == "in");
    } else {
      int order = 0;
      if (!Compare(left, right, &order)) return BadOperands(expr, op, left, right);
      holds = op == "<" ? order < 0 : op == "<=" ? order <= 0 : op == ">" ? order > 0 : order >= 0;
    }
    if (!holds) return Value::Of(false);
    left = std::move(right);
  }
  return Value::Of(true);
}

absl::StatusOr<Value> Interpreter::Attribute(const Value& object, std::string_view name) {
  if (object.IsUndefined()) {
    return InvalidArgument("'{}' of {}", name, object.TypeName());
  }
  const Value* member = nullptr;
  if (const Dict* const dict = object.AsDict()) member = FindMember(*dict, name);
  if (const Namespace* const space = object.AsNamespace()) {
    member = FindMember(space->members, name);
  }
  return member != nullptr ? *member : Value::Missing(std::string(name));
}

absl::StatusOr<Value> Interpreter::Subscript(const Expr& expr) {
  ASSAY_ASSIGN_OR_RETURN(const Value object, Evaluate(*expr.operands[0]));
  ASSAY_ASSIGN_OR_RETURN(const Value index, Evaluate(*expr.operands[1]));
  if (index.AsString() != nullptr || object.IsUndefined()) {
    absl::StatusOr<Value> value = Attribute(object, ToText(index));
    return value.ok() ? value : At(expr, value.status());
  }
  int64_t i = 0;
  if (!index.GetInteger(&i)) return Value::Missing(ToRepr(index));
  const auto resolve = [&i](size_t size) {
    if (i < 0) i += static_cast<int64_t>(size);
    return i >= 0 && i < static_cast<int64_t>(size);
  };
  if (const List* const list = object.AsList(); list != nullptr && resolve(list->size())) {
    return (*list)[static_cast<size_t>(i)];
  }
  if (const std::string* const text = object.AsString(); text && resolve(NumChars(*text))) {
    const size_t offset = CharOffset(*text, static_cast<size_t>(i));
    return Value::Of(text->substr(offset, DecodeChar(&(*text)[offset]).num_bytes));
  }
  return Value::Missing(ToRepr(index));
}

absl::StatusOr<Value> Interpreter::Slice(const Expr& expr) {
  ASSAY_ASSIGN_OR_RETURN(const Value object, Evaluate(*expr.operands[0]));
  int64_t parts[3] = {0, 0, 1};
  bool is_given[3] = {false, false, false};
  for (size_t k = 0; k < 3; ++k) {
    if (expr.operands[k + 1] == nullptr) continue;
    ASSAY_ASSIGN_OR_RETURN(const Value part, Evaluate(*expr.operands[k + 1]));
    if (part.IsNone()) continue;
    is_given[k] = part.GetInteger(&parts[k]);
    if (!is_given[k]) {
      return ErrorAt(expr.position, fmt::format("a slice by {}", part.TypeName()));
    }
    // Beyond any length, and far from overflow.
    parts[k] = std::clamp<int64_t>(parts[k], -(int64_t{1} << 40), int64_t{1} << 40);
  }
  if (parts[2] == 0) return ErrorAt(expr.position, "a slice with step 0");
  const bool is_text = object.AsString() != nullptr;
  if (!is_text && object.AsList() == nullptr) {
    return ErrorAt(expr.position, fmt::format("cannot slice {}", object.TypeName()));
  }
  const size_t size = is_text ? NumChars(*object.AsString()) : object.AsList()->size();
  const SliceRange range =
      BoundSlice(is_given[0] ? &parts[0] : nullptr, is_given[1] ? &parts[1] : nullptr, parts[2],
                 static_cast<int64_t>(size));
  if (is_text && range.step == 1) {
    const std::string& text = *object.AsString();
    const size_t begin = CharOffset(text, static_cast<size_t>(range.start));
    const size_t end = CharOffset(text, static_cast<size_t>(std::max(range.start, range.stop)));
    return Value::Of(text.substr(begin, end - begin));
  }
  const absl::StatusOr<List> items = Items(object);
  if (!items.ok()) return At(expr, items.status());
  List selected;
  for (int64_t i = range.start; range.step > 0 ? i < range.stop : i > range.stop; i += range.step) {
    selected.push_back((*items)[static_cast<size_t>(i)]);
  }
  if (!is_text) return Value::Of(std::move(selected));
  std::string text;
  for (const Value& character : selected) text += *character.AsString();
  return Value::Of(std::move(text));
}

absl::StatusOr<Arguments> Interpreter::EvaluateArguments(const Expr& expr) {
  Arguments arguments;
  for (size_t i = 1; i < expr.operands.size(); ++i) {
    ASSAY_ASSIGN_OR_RETURN(Value value, Evaluate(*expr.operands[i]));
    arguments.positional.push_back(std::move(value));
  }
  for (const auto& [name, argument] : expr.keywords) {
    ASSAY_ASSIGN_OR_RETURN(Value value, Evaluate(*argument));
    arguments.keywords.emplace_back(name, std::move(value));
  }
  return arguments;
}

absl::StatusOr<Value> Interpreter::Call(const Expr& expr) {
  const Expr& callee = *expr.operands[0];
  Value function;
  if (callee.kind == Expr::Kind::kAttribute) {
    ASSAY_ASSIGN_OR_RETURN(const Value object, Evaluate(*callee.operands[0]));
    ASSAY_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expr));
    absl::StatusOr<Value> result = CallMethod(object, callee.name, arguments);
    if (!absl::IsNotFound(result.status())) {
      return result.ok() ? result : At(expr, result.status());
    }
    absl::StatusOr<Value> member = Attribute(object, callee.name);
    if (!member.ok()) return At(callee, member.status());
    if (member->IsUndefined()) return At(callee, result.status());
    function = *std::move(member);
  } else {
    ASSAY_ASSIGN_OR_RETURN(function, Evaluate(callee));
  }
  ASSAY_ASSIGN_OR_RETURN(Arguments arguments, EvaluateArguments(expr));
  if (const Function* const known = function.As<Function>()) {
    return CallFunction(expr, *known, arguments);
  }
  if (const Macro* const macro = function.As<Macro>()) {
    return CallMacro(expr, *macro, arguments);
  }
  return ErrorAt(expr.position, fmt::format("cannot call {}", function.TypeName()));
}

absl::StatusOr<Value> Interpreter::CallFunction(const Expr& expr, const Function& function,
                                                const Arguments& arguments) {
  if (function.name == "raise_exception") {
    const Value* const message = arguments.Get(0, "message");
    return ErrorAt(expr.position, "the template raised: " +
                                      (message == nullptr ? std::string() : ToText(*message)));
  }
  if (function.name == "namespace") {
    auto space = std::make_shared<Namespace>();
    for (const auto& [name, value] : arguments.keywords) {
      ASSAY_RETURN_IF_ERROR(CheckMember(expr.position, value, 0));
      SetMember(&space->members, name, value);
    }
    return Value(Value::Storage(std::move(space)));
  }
  // range([start,] stop [, step])
  int64_t bounds[3] = {0, 0, 1};
  const size_t num_bounds = arguments.positional.size();
  if (num_bounds < 1 || num_bounds > 3) {
    return ErrorAt(expr.position, "range takes one to three numbers");
  }
  for (size_t i = 0; i < num_bounds; ++i) {
    int64_t* const bound = num_bounds == 1 ? &bounds[1] : &bounds[i];
    if (!arguments.positional[i].GetInteger(bound)) {
      return ErrorAt(expr.position, fmt::format("range of {}", arguments.positional[i].TypeName()));
    }
    *bound = std::clamp<int64_t>(*bound, -(int64_t{1} << 40), int64_t{1} << 40);
  }
  if (bounds[2] == 0) return ErrorAt(expr.position, "range with step 0");
  List items;
  for (int64_t i = bounds[0]; bounds[2] > 0 ? i < bounds[1] : i > bounds[1]; i += bounds[2]) {
    if (items.size() >= kMaxListItems) return ErrorAt(expr.position, "the range is too long");
    items.push_back(Value::Of(i));
  }
  ASSAY_RETURN_IF_ERROR(Charge(expr.position, items.size() * sizeof(Value)));
  return Value::Of(std::move(items));
}

absl::StatusOr<Value> Interpreter::CallMacro(const Expr& expr, const Macro& macro,
                                             const Arguments& arguments) {
  const Stmt& definition = *macro.definition;
  if (num_calls_ >= kMaxMacroCalls) {
    return ErrorAt(expr.position, fmt::format("over {} calls of macros in macros", kMaxMacroCalls));
  }
  if (arguments.positional.size() > definition.targets.size()) {
    return ErrorAt(expr.position, fmt::format("macro '{}' takes {} arguments", definition.text,
                                              definition.targets.size()));
  }
  for (const auto& [name, value] : arguments.keywords) {
    if (std::find(definition.targets.begin(), definition.targets.end(), name) ==
        definition.targets.end()) {
      return ErrorAt(expr.position,
                     fmt::format("macro '{}' has no parameter '{}'", definition.text, name));
    }
  }
  // The macro sees the variables around its definition, not those around the call.
  const size_t num_visible = std::min(macro.num_frames, frames_.size());
  std::vector<Dict> hidden(
      std::make_move_iterator(frames_.begin() + static_cast<std::ptrdiff_t>(num_visible)),
      std::make_move_iterator(frames_.end()));
  frames_.resize(num_visible);
  frames_.emplace_back();
  ++num_calls_;
  absl::Status status;
  const size_t num_required = definition.targets.size() - definition.defaults.size();
  for (size_t i = 0; i < definition.targets.size() && status.ok(); ++i) {
    const std::string& name = definition.targets[i];
    Value value = Value::Missing(name);
    if (const Value* const argument = arguments.Get(i, name)) {
      value = *argument;
    } else if (i >= num_required) {
      absl::StatusOr<Value> fallback = Evaluate(*definition.defaults[i - num_required]);
      status = fallback.status();
      if (fallback.ok()) value = *std::move(fallback);
    }
    SetMember(&frames_.back(), name, std::move(value));
  }
  std::string text;
  if (status.ok()) {
    absl::StatusOr<std::string> captured = Capture(definition.bodies[0]);
    status = captured.status();
    if (captured.ok()) text = *std::move(captured);
  }
  --num_calls_;
  frames_.resize(num_visible);
  frames_.insert(frames_.end(), std::make_move_iterator(hidden.begin()),
                 std::make_move_iterator(hidden.end()));
  ASSAY_RETURN_IF_ERROR(status);
  return Value::Of(std::move(text));
}

}  // namespace assay::engine::jinja
