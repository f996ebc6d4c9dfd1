#include "engine/tokenizer/jinja_eval.h"

#include <algorithm>

#include "base/status.h"
#include "engine/tokenizer/jinja_builtins.h"
#include "engine/tokenizer/jinja_interpreter.h"

namespace assay::engine::jinja {

absl::StatusOr<std::string> Render(const std::vector<Stmt>& statements, Dict variables) {
  return Interpreter(std::move(variables)).Run(statements);
}

Interpreter::Interpreter(Dict variables) {
  for (const char* const name : {"raise_exception", "namespace", "range"}) {
    variables.emplace_back(name, Value(Value::Storage(Function{name})));
  }
  frames_.push_back(std::move(variables));
}

absl::StatusOr<std::string> Interpreter::Run(const std::vector<Stmt>& statements) {
  ASSAY_RETURN_IF_ERROR(ExecuteAll(statements).status());
  return std::move(output_);
}

absl::Status Interpreter::Charge(Position position, size_t num_bytes) {
  constexpr int64_t kMaxSteps = 1'000'000;
  constexpr int64_t kMaxBytes = int64_t{256} << 20;  // made in all, printed or not
  num_bytes_ += static_cast<int64_t>(num_bytes);
  if (++num_steps_ > kMaxSteps) return ErrorAt(position, "the template takes too many steps");
  if (num_bytes_ > kMaxBytes) return ErrorAt(position, "the template makes too much text");
  return absl::OkStatus();
}

absl::Status Interpreter::Print(Position position, std::string_view text) {
  ASSAY_RETURN_IF_ERROR(Charge(position, text.size()));
  if (output_.size() + text.size() > kMaxStringBytes) {
    return ErrorAt(position, "the output is too long");
  }
  output_ += text;
  return absl::OkStatus();
}

const Value* Interpreter::Lookup(std::string_view name) const {
  for (size_t i = frames_.size(); i-- > 0;) {
    if (const Value* const value = FindMember(frames_[i], name)) return value;
  }
  return nullptr;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteAll(const std::vector<Stmt>& statements) {
  for (const Stmt& statement : statements) {
    ASSAY_ASSIGN_OR_RETURN(const Flow flow, Execute(statement));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Execute(const Stmt& statement) {
  ASSAY_RETURN_IF_ERROR(Charge(statement.position, 0));
  switch (statement.kind) {
    case Stmt::Kind::kText:
      ASSAY_RETURN_IF_ERROR(Print(statement.position, statement.text));
      return Flow::kNext;
    case Stmt::Kind::kOutput: {
      ASSAY_ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.value));
      ASSAY_RETURN_IF_ERROR(Print(statement.position, ToText(value)));
      return Flow::kNext;
    }
    case Stmt::Kind::kIf: {
      size_t branch = 0;
      for (; branch < statement.conditions.size(); ++branch) {
        ASSAY_ASSIGN_OR_RETURN(const Value holds, Evaluate(*statement.conditions[branch]));
        if (holds.IsTrue()) break;
      }
      if (branch == statement.bodies.size()) return Flow::kNext;
      return ExecuteAll(statement.bodies[branch]);
    }
    case Stmt::Kind::kFor:
      return Loop(statement);
    case Stmt::Kind::kSet: {
      ASSAY_ASSIGN_OR_RETURN(Value value, Evaluate(*statement.value));
      ASSAY_RETURN_IF_ERROR(Assign(statement, std::move(value)));
      return Flow::kNext;
    }
    case Stmt::Kind::kSetBlock: {
      ASSAY_ASSIGN_OR_RETURN(std::string text, Capture(statement.bodies[0]));
      SetMember(&frames_.back(), statement.targets[0], Value::Of(std::move(text)));
      return Flow::kNext;
    }
    case Stmt::Kind::kMacro:
      SetMember(&frames_.back(), statement.text,
                Value(Value::Storage(Macro{&statement, frames_.size()})));
      return Flow::kNext;
    case Stmt::Kind::kBreak:
      return Flow::kBreak;
    case Stmt::Kind::kContinue:
      return Flow::kContinue;
    case Stmt::Kind::kScope: {
      frames_.emplace_back();
      const absl::StatusOr<Flow> flow = ExecuteAll(statement.bodies[0]);
      frames_.pop_back();
      return flow;
    }
  }
  return ErrorAt(statement.position, "an unknown statement");
}

absl::Status Interpreter::Assign(const Stmt& statement, Value value) {
  if (!statement.member.empty()) {
    const Value* const object = Lookup(statement.targets[0]);
    if (object == nullptr || object->AsNamespace() == nullptr) {
      return ErrorAt(
          statement.position,
          fmt::format("'{}' is no namespace; only its members can be set", statement.targets[0]));
    }
    ASSAY_RETURN_IF_ERROR(CheckMember(statement.position, value, 0));
    SetMember(&object->AsNamespace()->members, statement.member, std::move(value));
    return absl::OkStatus();
  }
  return Unpack(statement, value);
}

// Every visit is a step, so that lists which share their items cannot be made exponentially large.
absl::Status Interpreter::CheckMember(Position position, const Value& value, int depth) {
  constexpr int kMaxDepth = 64;
  ASSAY_RETURN_IF_ERROR(Charge(position, 0));
  if (depth > kMaxDepth) return ErrorAt(position, "the value is nested too deeply");
  if (value.AsNamespace() != nullptr) {
    return ErrorAt(position, "a namespace cannot be kept in another value");
  }
  if (const List* const list = value.AsList()) {
    for (const Value& item : *list) {
      ASSAY_RETURN_IF_ERROR(CheckMember(position, item, depth + 1));
    }
  }
  if (const Dict* const dict = value.AsDict()) {
    for (const auto& [key, member] : *dict) {
      ASSAY_RETURN_IF_ERROR(CheckMember(position, member, depth + 1));
    }
  }
  return absl::OkStatus();
}

// Binds the targets of a set or for to a value, or to the items of one.
absl::Status Interpreter::Unpack(const Stmt& statement, const Value& value) {
  if (statement.targets.size() == 1) {
    SetMember(&frames_.back(), statement.targets[0], value);
    return absl::OkStatus();
  }
  const absl::StatusOr<List> items = Items(value);
  if (!items.ok()) return ErrorAt(statement.position, Message(items.status()));
  if (items->size() != statement.targets.size()) {
    return ErrorAt(statement.position,
                   fmt::format("{} names for {} values", statement.targets.size(), items->size()));
  }
  for (size_t i = 0; i < items->size(); ++i) {
    SetMember(&frames_.back(), statement.targets[i], (*items)[i]);
  }
  return absl::OkStatus();
}

absl::StatusOr<Interpreter::Flow> Interpreter::Loop(const Stmt& statement) {
  ASSAY_ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.value));
  absl::StatusOr<List> all = Items(value);
  if (!all.ok()) return ErrorAt(statement.position, Message(all.status()));
  List items;
  for (Value& item : *all) {
    bool is_wanted = true;
    if (statement.condition != nullptr) {
      frames_.emplace_back();
      absl::Status status = Unpack(statement, item);
      if (status.ok()) {
        const absl::StatusOr<Value> holds = Evaluate(*statement.condition);
        status = holds.status();
        is_wanted = holds.ok() && holds->IsTrue();
      }
      frames_.pop_back();
      ASSAY_RETURN_IF_ERROR(status);
    }
    if (is_wanted) items.push_back(std::move(item));
  }
  if (items.empty()) {
    return statement.bodies.size() > 1 ? ExecuteAll(statement.bodies[1]) : Flow::kNext;
  }
  for (size_t i = 0; i < items.size(); ++i) {
    frames_.emplace_back();
    absl::StatusOr<Flow> flow = Turn(statement, items, i);
    frames_.pop_back();
    if (!flow.ok()) return flow;
    if (*flow == Flow::kBreak) break;
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Turn(const Stmt& statement, const List& items,
                                                    size_t i) {
  const auto integer = [](size_t value) { return Value::Of(static_cast<int64_t>(value)); };
  Dict loop = {{"index", integer(i + 1)},
               {"index0", integer(i)},
               {"revindex", integer(items.size() - i)},
               {"revindex0", integer(items.size() - i - 1)},
               {"first", Value::Of(i == 0)},
               {"last", Value::Of(i + 1 == items.size())},
               {"length", integer(items.size())}};
  if (i > 0) loop.emplace_back("previtem", items[i - 1]);
  if (i + 1 < items.size()) loop.emplace_back("nextitem", items[i + 1]);
  frames_.back().emplace_back("loop", Value::Of(std::move(loop)));
  ASSAY_RETURN_IF_ERROR(Charge(statement.position, 0));
  ASSAY_RETURN_IF_ERROR(Unpack(statement, items[i]));
  return ExecuteAll(statement.bodies[0]);
}

// What the body prints, in a frame of its own.
absl::StatusOr<std::string> Interpreter::Capture(const std::vector<Stmt>& body) {
  std::string outside = std::move(output_);
  output_.clear();
  frames_.emplace_back();
  const absl::Status status = ExecuteAll(body).status();
  frames_.pop_back();
  std::string captured = std::move(output_);
  output_ = std::move(outside);
  ASSAY_RETURN_IF_ERROR(status);
  return captured;
}

}  // namespace assay::engine::jinja
