// The expression half of the parser; internal to the parser's .cc files.
#pragma once

#include <absl/status/statusor.h>

#include <string_view>
#include <utility>
#include <vector>

#include "engine/tokenizer/jinja_ast.h"
#include "engine/tokenizer/jinja_lexer.h"

namespace assay::engine::jinja {

// A cursor over the tokens, and recursive descent by precedence. Not thread-safe.
class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<LexerToken> tokens) : tokens_(std::move(tokens)) {}

  const LexerToken& Current() const { return tokens_[i_]; }
  void Advance() { i_ += i_ + 1 < tokens_.size(); }
  bool IsName(std::string_view name) const {
    return Current().kind == TokenKind::kName && Current().text == name;
  }
  bool IsOperator(std::string_view op) const {
    return Current().kind == TokenKind::kOperator && Current().text == op;
  }
  // Goes past the token if it is the one.
  bool SkipName(std::string_view name);
  bool SkipOperator(std::string_view op);
  absl::Status ExpectOperator(std::string_view op);
  absl::StatusOr<std::string> ExpectName();
  absl::Status Unexpected(std::string_view wanted) const;

  // An expression; with `allow_conditional`, "a if b else c" too.
  absl::StatusOr<ExprPtr> Expression(bool allow_conditional = true);
  // Expressions with commas between them: a list, or the one expression itself.
  absl::StatusOr<ExprPtr> ExpressionOrTuple(bool allow_conditional = true);

 private:
  using ParseOperand = absl::StatusOr<ExprPtr> (ExpressionParser::*)();

  absl::StatusOr<ExprPtr> Or();
  absl::StatusOr<ExprPtr> And();
  absl::StatusOr<ExprPtr> Not();
  absl::StatusOr<ExprPtr> Comparison();
  absl::StatusOr<ExprPtr> Sum();
  absl::StatusOr<ExprPtr> Concatenation();
  absl::StatusOr<ExprPtr> Product();
  absl::StatusOr<ExprPtr> Power();
  absl::StatusOr<ExprPtr> Unary();
  absl::StatusOr<ExprPtr> Primary();
  absl::StatusOr<ExprPtr> Number();
  absl::StatusOr<ExprPtr> ListLiteral();
  absl::StatusOr<ExprPtr> DictLiteral();
  absl::StatusOr<ExprPtr> Postfix(ExprPtr node);
  absl::StatusOr<ExprPtr> Subscript(ExprPtr object);
  absl::StatusOr<ExprPtr> FiltersAndTests(ExprPtr node);
  absl::StatusOr<ExprPtr> Test(ExprPtr node);
  absl::Status Arguments(Expr* call);

  // left (op right)* over the operators given.
  absl::StatusOr<ExprPtr> LeftAssociative(std::initializer_list<std::string_view> operators,
                                          ParseOperand operand);

  static ExprPtr Make(Expr::Kind kind, Position position);
  // The node with its operands; refuses trees too deep to walk.
  absl::StatusOr<ExprPtr> Finish(ExprPtr node) const;

  std::vector<LexerToken> tokens_;  // ends in kEnd
  size_t i_ = 0;
  int nesting_ = 0;
};

}  // namespace assay::engine::jinja
