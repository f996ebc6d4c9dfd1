// The state of one rendering; internal to the interpreter's .cc files.
#pragma once

#include <absl/status/statusor.h>

#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/jinja_ast.h"
#include "engine/tokenizer/jinja_builtins.h"

namespace assay::engine::jinja {

class Interpreter {
 public:
  explicit Interpreter(Dict variables);

  // Call once.
  absl::StatusOr<std::string> Run(const std::vector<Stmt>& statements);

 private:
  enum class Flow { kNext, kBreak, kContinue };

  // Statements (jinja_eval.cc).
  absl::StatusOr<Flow> ExecuteAll(const std::vector<Stmt>& statements);
  absl::StatusOr<Flow> Execute(const Stmt& statement);
  absl::StatusOr<Flow> Loop(const Stmt& statement);
  absl::StatusOr<Flow> Turn(const Stmt& statement, const List& items, size_t i);
  absl::Status Assign(const Stmt& statement, Value value);
  // Whether `value` may become part of another: not so deep that freeing it overflows the stack,
  // and no namespace, with which it could become a circle that nothing frees.
  absl::Status CheckMember(Position position, const Value& value, int depth);
  absl::Status Unpack(const Stmt& statement, const Value& value);
  absl::StatusOr<std::string> Capture(const std::vector<Stmt>& body);
  absl::Status Print(Position position, std::string_view text);
  const Value* Lookup(std::string_view name) const;

  // One step more, which makes `num_bytes`.
  absl::Status Charge(Position position, size_t num_bytes);

  // Expressions (jinja_expressions.cc).
  absl::StatusOr<Value> Evaluate(const Expr& expr);
  absl::StatusOr<Value> EvaluateKind(const Expr& expr);
  absl::StatusOr<Value> DictOf(const Expr& expr);
  absl::StatusOr<Value> Negate(const Expr& expr);
  absl::StatusOr<Value> Binary(const Expr& expr);
  absl::StatusOr<Value> Comparison(const Expr& expr);
  absl::StatusOr<Value> Attribute(const Value& object, std::string_view name);
  absl::StatusOr<Value> Subscript(const Expr& expr);
  absl::StatusOr<Value> Slice(const Expr& expr);
  absl::StatusOr<Value> Call(const Expr& expr);
  absl::StatusOr<Value> CallFunction(const Expr& expr, const Function& function,
                                     const Arguments& arguments);
  absl::StatusOr<Value> CallMacro(const Expr& expr, const Macro& macro, const Arguments& arguments);
  absl::StatusOr<Arguments> EvaluateArguments(const Expr& expr);

  std::vector<Dict> frames_;  // of variables, the innermost last
  std::string output_;
  int64_t num_steps_ = 0;
  int64_t num_bytes_ = 0;
  int depth_ = 0;      // of Evaluate in Evaluate
  int num_calls_ = 0;  // of macros in macros
};

}  // namespace assay::engine::jinja
