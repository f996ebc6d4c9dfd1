#include "engine/tokenizer/jinja_expression_parser.h"

#include <algorithm>
#include <charconv>

#include "base/status.h"
#include "engine/tokenizer/jinja_builtins.h"

namespace assay::engine::jinja {
namespace {

// Of brackets and operators. Parsing and evaluation recurse this deep, on threads with small
// stacks.
constexpr int kMaxNesting = 100;
constexpr int kMaxTreeDepth = 200;

}  // namespace

bool ExpressionParser::SkipName(std::string_view name) {
  if (!IsName(name)) return false;
  Advance();
  return true;
}

bool ExpressionParser::SkipOperator(std::string_view op) {
  if (!IsOperator(op)) return false;
  Advance();
  return true;
}

absl::Status ExpressionParser::ExpectOperator(std::string_view op) {
  return SkipOperator(op) ? absl::OkStatus() : Unexpected(fmt::format("'{}'", op));
}

absl::StatusOr<std::string> ExpressionParser::ExpectName() {
  if (Current().kind != TokenKind::kName) return Unexpected("a name");
  std::string name = Current().text;
  Advance();
  return name;
}

absl::Status ExpressionParser::Unexpected(std::string_view wanted) const {
  const LexerToken& token = Current();
  std::string found = "'" + token.text + "'";
  if (token.kind == TokenKind::kEnd) found = "the end of the template";
  if (token.kind == TokenKind::kBlockEnd) found = "'%}'";
  if (token.kind == TokenKind::kVariableEnd) found = "'}}'";
  if (token.kind == TokenKind::kString) found = "a string";
  return ErrorAt(token.position, fmt::format("expected {}, found {}", wanted, found));
}

ExprPtr ExpressionParser::Make(Expr::Kind kind, Position position) {
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->position = position;
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::Finish(ExprPtr node) const {
  const auto cover = [&](const ExprPtr& operand) {
    if (operand != nullptr) node->depth = std::max(node->depth, operand->depth + 1);
  };
  for (const ExprPtr& operand : node->operands) cover(operand);
  for (const auto& [name, operand] : node->keywords) cover(operand);
  if (node->depth > kMaxTreeDepth) {
    return ErrorAt(node->position, fmt::format("the expression has over {} levels", kMaxTreeDepth));
  }
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::Expression(bool allow_conditional) {
  if (nesting_ >= kMaxNesting) {
    return ErrorAt(Current().position, fmt::format("over {} levels of nesting", kMaxNesting));
  }
  ++nesting_;
  absl::StatusOr<ExprPtr> value = Or();
  while (value.ok() && allow_conditional && IsName("if")) {
    ExprPtr node = Make(Expr::Kind::kConditional, Current().position);
    Advance();
    node->operands.push_back(*std::move(value));
    ASSAY_ASSIGN_OR_RETURN(ExprPtr condition, Or());
    node->operands.push_back(std::move(condition));
    if (SkipName("else")) {
      ASSAY_ASSIGN_OR_RETURN(ExprPtr otherwise, Expression());
      node->operands.push_back(std::move(otherwise));
    }
    value = Finish(std::move(node));
  }
  --nesting_;
  return value;
}

absl::StatusOr<ExprPtr> ExpressionParser::ExpressionOrTuple(bool allow_conditional) {
  const Position position = Current().position;
  ASSAY_ASSIGN_OR_RETURN(ExprPtr first, Expression(allow_conditional));
  if (!IsOperator(",")) return first;
  ExprPtr tuple = Make(Expr::Kind::kList, position);
  tuple->operands.push_back(std::move(first));
  while (SkipOperator(",")) {
    const TokenKind kind = Current().kind;
    if (kind == TokenKind::kBlockEnd || kind == TokenKind::kVariableEnd || IsOperator(")")) break;
    ASSAY_ASSIGN_OR_RETURN(ExprPtr item, Expression(allow_conditional));
    tuple->operands.push_back(std::move(item));
  }
  return Finish(std::move(tuple));
}

absl::StatusOr<ExprPtr> ExpressionParser::LeftAssociative(
    std::initializer_list<std::string_view> operators, ParseOperand operand) {
  ASSAY_ASSIGN_OR_RETURN(ExprPtr left, (this->*operand)());
  while (true) {
    const auto op = std::find_if(operators.begin(), operators.end(),
                                 [this](std::string_view name) { return IsOperator(name); });
    if (op == operators.end()) return left;
    ExprPtr node = Make(Expr::Kind::kBinary, Current().position);
    node->name = *op;
    Advance();
    node->operands.push_back(std::move(left));
    ASSAY_ASSIGN_OR_RETURN(ExprPtr right, (this->*operand)());
    node->operands.push_back(std::move(right));
    ASSAY_ASSIGN_OR_RETURN(left, Finish(std::move(node)));
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::Or() {
  ASSAY_ASSIGN_OR_RETURN(ExprPtr left, And());
  while (IsName("or")) {
    ExprPtr node = Make(Expr::Kind::kOr, Current().position);
    Advance();
    node->operands.push_back(std::move(left));
    ASSAY_ASSIGN_OR_RETURN(ExprPtr right, And());
    node->operands.push_back(std::move(right));
    ASSAY_ASSIGN_OR_RETURN(left, Finish(std::move(node)));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::And() {
  ASSAY_ASSIGN_OR_RETURN(ExprPtr left, Not());
  while (IsName("and")) {
    ExprPtr node = Make(Expr::Kind::kAnd, Current().position);
    Advance();
    node->operands.push_back(std::move(left));
    ASSAY_ASSIGN_OR_RETURN(ExprPtr right, Not());
    node->operands.push_back(std::move(right));
    ASSAY_ASSIGN_OR_RETURN(left, Finish(std::move(node)));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::Not() {
  std::vector<Position> nots;
  while (IsName("not")) {
    nots.push_back(Current().position);
    Advance();
  }
  ASSAY_ASSIGN_OR_RETURN(ExprPtr operand, Comparison());
  for (; !nots.empty(); nots.pop_back()) {
    ExprPtr node = Make(Expr::Kind::kNot, nots.back());
    node->operands.push_back(std::move(operand));
    ASSAY_ASSIGN_OR_RETURN(operand, Finish(std::move(node)));
  }
  return operand;
}

absl::StatusOr<ExprPtr> ExpressionParser::Comparison() {
  constexpr std::string_view kOperators[] = {"==", "!=", "<", "<=", ">", ">="};
  const Position position = Current().position;
  ASSAY_ASSIGN_OR_RETURN(ExprPtr first, Sum());
  ExprPtr chain = Make(Expr::Kind::kCompare, position);
  chain->operands.push_back(std::move(first));
  while (true) {
    const LexerToken& token = Current();
    const bool is_sign =
        token.kind == TokenKind::kOperator &&
        std::find(std::begin(kOperators), std::end(kOperators), token.text) != std::end(kOperators);
    const bool is_not_in =
        IsName("not") && tokens_[i_ + 1].kind == TokenKind::kName && tokens_[i_ + 1].text == "in";
    if (!is_sign && !is_not_in && !IsName("in")) break;
    chain->operators.push_back(is_not_in ? "not in" : token.text);
    Advance();
    if (is_not_in) Advance();
    ASSAY_ASSIGN_OR_RETURN(ExprPtr next, Sum());
    chain->operands.push_back(std::move(next));
  }
  if (chain->operators.empty()) return std::move(chain->operands[0]);
  return Finish(std::move(chain));
}

absl::StatusOr<ExprPtr> ExpressionParser::Sum() {
  return LeftAssociative({"+", "-"}, &ExpressionParser::Concatenation);
}

absl::StatusOr<ExprPtr> ExpressionParser::Concatenation() {
  return LeftAssociative({"~"}, &ExpressionParser::Product);
}

absl::StatusOr<ExprPtr> ExpressionParser::Product() {
  return LeftAssociative({"*", "/", "//", "%"}, &ExpressionParser::Power);
}

absl::StatusOr<ExprPtr> ExpressionParser::Power() {
  return LeftAssociative({"**"}, &ExpressionParser::Unary);
}

// Signs bind tighter than filters: -x|abs is (-x)|abs.
absl::StatusOr<ExprPtr> ExpressionParser::Unary() {
  std::vector<std::pair<Expr::Kind, Position>> signs;
  while (IsOperator("-") || IsOperator("+")) {
    signs.emplace_back(IsOperator("-") ? Expr::Kind::kNegate : Expr::Kind::kPlus,
                       Current().position);
    Advance();
  }
  ASSAY_ASSIGN_OR_RETURN(ExprPtr operand, Primary());
  ASSAY_ASSIGN_OR_RETURN(operand, Postfix(std::move(operand)));
  for (; !signs.empty(); signs.pop_back()) {
    ExprPtr node = Make(signs.back().first, signs.back().second);
    node->operands.push_back(std::move(operand));
    ASSAY_ASSIGN_OR_RETURN(operand, Finish(std::move(node)));
  }
  return FiltersAndTests(std::move(operand));
}

absl::StatusOr<ExprPtr> ExpressionParser::Primary() {
  const LexerToken token = Current();
  ExprPtr node = Make(Expr::Kind::kLiteral, token.position);
  switch (token.kind) {
    case TokenKind::kName:
      Advance();
      if (token.text == "true" || token.text == "True") {
        node->literal = Value::Of(true);
      } else if (token.text == "false" || token.text == "False") {
        node->literal = Value::Of(false);
      } else if (token.text == "none" || token.text == "None") {
        node->literal = Value::OfNone();
      } else {
        node->kind = Expr::Kind::kName;
        node->name = token.text;
      }
      return node;
    case TokenKind::kString: {
      std::string text;  // neighbours join
      for (; Current().kind == TokenKind::kString; Advance()) text += Current().text;
      node->literal = Value::Of(std::move(text));
      return node;
    }
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return Number();
    default:
      break;
  }
  if (SkipOperator("(")) {
    if (SkipOperator(")")) {
      node->kind = Expr::Kind::kList;
      return node;
    }
    ASSAY_ASSIGN_OR_RETURN(node, ExpressionOrTuple());
    ASSAY_RETURN_IF_ERROR(ExpectOperator(")"));
    return node;
  }
  if (IsOperator("[")) return ListLiteral();
  if (IsOperator("{")) return DictLiteral();
  return Unexpected("an expression");
}

absl::StatusOr<ExprPtr> ExpressionParser::Number() {
  const LexerToken token = Current();
  ExprPtr node = Make(Expr::Kind::kLiteral, token.position);
  const char* const begin = token.text.data();
  const char* const end = begin + token.text.size();
  if (token.kind == TokenKind::kInteger) {
    int64_t value = 0;
    if (std::from_chars(begin, end, value).ec != std::errc()) {
      return ErrorAt(token.position, "the number is too large");
    }
    node->literal = Value::Of(value);
  } else {
    double value = 0;
    if (std::from_chars(begin, end, value).ec != std::errc()) {
      return ErrorAt(token.position, "the number is out of range");
    }
    node->literal = Value::Of(value);
  }
  Advance();
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::ListLiteral() {
  ExprPtr node = Make(Expr::Kind::kList, Current().position);
  ASSAY_RETURN_IF_ERROR(ExpectOperator("["));
  while (!IsOperator("]")) {
    ASSAY_ASSIGN_OR_RETURN(ExprPtr item, Expression());
    node->operands.push_back(std::move(item));
    if (!SkipOperator(",")) break;
  }
  ASSAY_RETURN_IF_ERROR(ExpectOperator("]"));
  return Finish(std::move(node));
}

absl::StatusOr<ExprPtr> ExpressionParser::DictLiteral() {
  ExprPtr node = Make(Expr::Kind::kDict, Current().position);
  ASSAY_RETURN_IF_ERROR(ExpectOperator("{"));
  while (!IsOperator("}")) {
    ASSAY_ASSIGN_OR_RETURN(ExprPtr key, Expression());
    ASSAY_RETURN_IF_ERROR(ExpectOperator(":"));
    ASSAY_ASSIGN_OR_RETURN(ExprPtr value, Expression());
    node->operands.push_back(std::move(key));
    node->operands.push_back(std::move(value));
    if (!SkipOperator(",")) break;
  }
  ASSAY_RETURN_IF_ERROR(ExpectOperator("}"));
  return Finish(std::move(node));
}

absl::StatusOr<ExprPtr> ExpressionParser::Postfix(ExprPtr node) {
  while (true) {
    const Position position = Current().position;
    if (SkipOperator(".")) {
      ExprPtr attribute = Make(Expr::Kind::kAttribute, position);
      attribute->operands.push_back(std::move(node));
      if (Current().kind == TokenKind::kInteger) {  // x.0 is x[0]
        attribute->kind = Expr::Kind::kSubscript;
        ASSAY_ASSIGN_OR_RETURN(ExprPtr index, Number());
        attribute->operands.push_back(std::move(index));
      } else {
        ASSAY_ASSIGN_OR_RETURN(attribute->name, ExpectName());
      }
      ASSAY_ASSIGN_OR_RETURN(node, Finish(std::move(attribute)));
    } else if (IsOperator("[")) {
      ASSAY_ASSIGN_OR_RETURN(node, Subscript(std::move(node)));
    } else if (IsOperator("(")) {
      ExprPtr call = Make(Expr::Kind::kCall, position);
      call->operands.push_back(std::move(node));
      ASSAY_RETURN_IF_ERROR(Arguments(call.get()));
      ASSAY_ASSIGN_OR_RETURN(node, Finish(std::move(call)));
    } else {
      return node;
    }
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::Subscript(ExprPtr object) {
  ExprPtr node = Make(Expr::Kind::kSubscript, Current().position);
  node->operands.push_back(std::move(object));
  ASSAY_RETURN_IF_ERROR(ExpectOperator("["));
  ExprPtr part;
  if (!IsOperator(":")) {
    ASSAY_ASSIGN_OR_RETURN(part, Expression());
  }
  node->operands.push_back(std::move(part));
  while (SkipOperator(":")) {
    node->kind = Expr::Kind::kSlice;
    if (!IsOperator(":") && !IsOperator("]")) {
      ASSAY_ASSIGN_OR_RETURN(part, Expression());
    }
    node->operands.push_back(std::move(part));
  }
  if (node->operands.size() > 4) return ErrorAt(node->position, "a slice has three parts at most");
  if (node->kind == Expr::Kind::kSlice) node->operands.resize(4);
  ASSAY_RETURN_IF_ERROR(ExpectOperator("]"));
  return Finish(std::move(node));
}

absl::Status ExpressionParser::Arguments(Expr* call) {
  ASSAY_RETURN_IF_ERROR(ExpectOperator("("));
  while (!IsOperator(")")) {
    const bool is_keyword = Current().kind == TokenKind::kName &&
                            tokens_[i_ + 1].kind == TokenKind::kOperator &&
                            tokens_[i_ + 1].text == "=";
    if (is_keyword) {
      std::string name = Current().text;
      Advance();
      Advance();
      ASSAY_ASSIGN_OR_RETURN(ExprPtr value, Expression());
      call->keywords.emplace_back(std::move(name), std::move(value));
    } else if (!call->keywords.empty()) {
      return Unexpected("a keyword argument");
    } else {
      ASSAY_ASSIGN_OR_RETURN(ExprPtr value, Expression());
      call->operands.push_back(std::move(value));
    }
    if (!SkipOperator(",")) break;
  }
  return ExpectOperator(")");
}

absl::StatusOr<ExprPtr> ExpressionParser::FiltersAndTests(ExprPtr node) {
  while (true) {
    const Position position = Current().position;
    if (SkipOperator("|")) {
      ExprPtr filter = Make(Expr::Kind::kFilter, position);
      ASSAY_ASSIGN_OR_RETURN(filter->name, ExpectName());
      if (!IsFilter(filter->name)) {
        return ErrorAt(position, fmt::format("unknown filter '{}'", filter->name));
      }
      filter->operands.push_back(std::move(node));
      if (IsOperator("(")) ASSAY_RETURN_IF_ERROR(Arguments(filter.get()));
      ASSAY_ASSIGN_OR_RETURN(node, Finish(std::move(filter)));
    } else if (SkipName("is")) {
      ASSAY_ASSIGN_OR_RETURN(node, Test(std::move(node)));
    } else if (IsOperator("(")) {  // what a filter gave can be called
      ExprPtr call = Make(Expr::Kind::kCall, position);
      call->operands.push_back(std::move(node));
      ASSAY_RETURN_IF_ERROR(Arguments(call.get()));
      ASSAY_ASSIGN_OR_RETURN(node, Finish(std::move(call)));
    } else {
      return node;
    }
  }
}

// x is [not] name, name(arguments) or name argument; "is" was read.
absl::StatusOr<ExprPtr> ExpressionParser::Test(ExprPtr operand) {
  const Position position = Current().position;
  const bool negated = SkipName("not");
  ExprPtr test = Make(Expr::Kind::kTest, position);
  ASSAY_ASSIGN_OR_RETURN(test->name, ExpectName());
  if (!IsTest(test->name)) {
    return ErrorAt(position, fmt::format("unknown test '{}'", test->name));
  }
  test->operands.push_back(std::move(operand));
  const TokenKind kind = Current().kind;
  const bool is_word = kind == TokenKind::kName && !IsName("else") && !IsName("or") &&
                       !IsName("and") && !IsName("is") && !IsName("if") && !IsName("not") &&
                       !IsName("in");
  if (IsOperator("(")) {
    ASSAY_RETURN_IF_ERROR(Arguments(test.get()));
  } else if (is_word || kind == TokenKind::kString || kind == TokenKind::kInteger ||
             kind == TokenKind::kFloat || IsOperator("[") || IsOperator("{")) {
    ASSAY_ASSIGN_OR_RETURN(ExprPtr argument, Primary());
    ASSAY_ASSIGN_OR_RETURN(argument, Postfix(std::move(argument)));
    test->operands.push_back(std::move(argument));
  }
  ASSAY_ASSIGN_OR_RETURN(ExprPtr node, Finish(std::move(test)));
  if (!negated) return node;
  ExprPtr inverse = Make(Expr::Kind::kNot, position);
  inverse->operands.push_back(std::move(node));
  return Finish(std::move(inverse));
}

}  // namespace assay::engine::jinja
