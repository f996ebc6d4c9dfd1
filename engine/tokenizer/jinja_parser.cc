#include "engine/tokenizer/jinja_parser.h"

#include "base/status.h"
#include "engine/tokenizer/jinja_expression_parser.h"

namespace assay::engine::jinja {
namespace {

constexpr int kMaxNesting = 50;  // of blocks in blocks

class Parser {
 public:
  explicit Parser(std::vector<LexerToken> tokens) : expressions_(std::move(tokens)) {}

  absl::StatusOr<std::vector<Stmt>> Run() {
    std::vector<Stmt> body;
    ASSAY_RETURN_IF_ERROR(Body({}, &body));
    return body;
  }

 private:
  using Names = std::initializer_list<std::string_view>;

  const LexerToken& Current() const { return expressions_.Current(); }

  absl::Status ExpectBlockEnd() {
    if (Current().kind != TokenKind::kBlockEnd) return expressions_.Unexpected("'%}'");
    expressions_.Advance();
    return absl::OkStatus();
  }

  // Statements up to a block whose name is one of `ends` (its name is then current), or, when there
  // are none, to the end of the template.
  absl::Status Body(Names ends, std::vector<Stmt>* body) {
    while (true) {
      const LexerToken token = Current();
      switch (token.kind) {
        case TokenKind::kEnd:
          if (ends.size() == 0) return absl::OkStatus();
          return expressions_.Unexpected(fmt::format("{{% {} %}}", *(ends.end() - 1)));
        case TokenKind::kText:
          body->push_back(Make(Stmt::Kind::kText));
          body->back().text = token.text;
          expressions_.Advance();
          break;
        case TokenKind::kVariableBegin: {
          Stmt output = Make(Stmt::Kind::kOutput);
          expressions_.Advance();
          ASSAY_ASSIGN_OR_RETURN(output.value, expressions_.ExpressionOrTuple());
          if (Current().kind != TokenKind::kVariableEnd) return expressions_.Unexpected("'}}'");
          expressions_.Advance();
          body->push_back(std::move(output));
          break;
        }
        default: {  // kBlockBegin
          expressions_.Advance();
          for (const std::string_view end : ends) {
            if (expressions_.IsName(end)) return absl::OkStatus();
          }
          ASSAY_ASSIGN_OR_RETURN(Stmt statement, Block());
          body->push_back(std::move(statement));
        }
      }
    }
  }

  Stmt Make(Stmt::Kind kind) const {
    Stmt statement{};
    statement.kind = kind;
    statement.position = Current().position;
    return statement;
  }

  // The body of a block and its end tag.
  absl::Status BodyToEnd(std::string_view end, Stmt* statement) {
    ASSAY_RETURN_IF_ERROR(ExpectBlockEnd());
    ASSAY_RETURN_IF_ERROR(Body({end}, &statement->bodies.emplace_back()));
    expressions_.Advance();
    return ExpectBlockEnd();
  }

  absl::StatusOr<Stmt> Block() {
    if (nesting_ >= kMaxNesting) {
      return ErrorAt(Current().position, fmt::format("over {} blocks in blocks", kMaxNesting));
    }
    ++nesting_;
    absl::StatusOr<Stmt> statement = BlockByName();
    --nesting_;
    return statement;
  }

  absl::StatusOr<Stmt> BlockByName() {
    if (expressions_.IsName("if")) return If();
    if (expressions_.IsName("for")) return For();
    if (expressions_.IsName("set")) return Set();
    if (expressions_.IsName("macro")) return Macro();
    if (expressions_.IsName("generation")) {  // transformers' mark of what the assistant said
      Stmt scope = Make(Stmt::Kind::kScope);
      expressions_.Advance();
      ASSAY_RETURN_IF_ERROR(BodyToEnd("endgeneration", &scope));
      return scope;
    }
    if (expressions_.IsName("break") || expressions_.IsName("continue")) {
      Stmt jump = Make(expressions_.IsName("break") ? Stmt::Kind::kBreak : Stmt::Kind::kContinue);
      if (loops_ == 0) return ErrorAt(jump.position, "not in a loop");
      expressions_.Advance();
      ASSAY_RETURN_IF_ERROR(ExpectBlockEnd());
      return jump;
    }
    if (Current().kind != TokenKind::kName) return expressions_.Unexpected("the name of a tag");
    return ErrorAt(Current().position, fmt::format("unknown tag '{}'", Current().text));
  }

  absl::StatusOr<Stmt> If() {
    Stmt statement = Make(Stmt::Kind::kIf);
    while (expressions_.SkipName("if") || expressions_.SkipName("elif")) {
      ASSAY_ASSIGN_OR_RETURN(ExprPtr condition, expressions_.ExpressionOrTuple());
      statement.conditions.push_back(std::move(condition));
      ASSAY_RETURN_IF_ERROR(ExpectBlockEnd());
      ASSAY_RETURN_IF_ERROR(Body({"elif", "else", "endif"}, &statement.bodies.emplace_back()));
    }
    if (expressions_.SkipName("else")) {
      ASSAY_RETURN_IF_ERROR(ExpectBlockEnd());
      ASSAY_RETURN_IF_ERROR(Body({"endif"}, &statement.bodies.emplace_back()));
    }
    if (!expressions_.SkipName("endif")) return expressions_.Unexpected("{% endif %}");
    ASSAY_RETURN_IF_ERROR(ExpectBlockEnd());
    return statement;
  }

  absl::StatusOr<Stmt> For() {
    Stmt statement = Make(Stmt::Kind::kFor);
    expressions_.Advance();
    ASSAY_ASSIGN_OR_RETURN(statement.targets, Targets());
    if (!expressions_.SkipName("in")) return expressions_.Unexpected("'in'");
    ASSAY_ASSIGN_OR_RETURN(statement.value,
                           expressions_.ExpressionOrTuple(/*allow_conditional=*/false));
    if (expressions_.SkipName("if")) {
      ASSAY_ASSIGN_OR_RETURN(statement.condition, expressions_.Expression());
    }
    ASSAY_RETURN_IF_ERROR(ExpectBlockEnd());
    ++loops_;
    const absl::Status body = Body({"else", "endfor"}, &statement.bodies.emplace_back());
    --loops_;
    ASSAY_RETURN_IF_ERROR(body);
    if (expressions_.SkipName("else")) {
      ASSAY_RETURN_IF_ERROR(ExpectBlockEnd());
      ASSAY_RETURN_IF_ERROR(Body({"endfor"}, &statement.bodies.emplace_back()));
    }
    expressions_.Advance();
    ASSAY_RETURN_IF_ERROR(ExpectBlockEnd());
    return statement;
  }

  absl::StatusOr<std::vector<std::string>> Targets() {
    std::vector<std::string> targets;
    const bool in_parentheses = expressions_.SkipOperator("(");
    do {
      ASSAY_ASSIGN_OR_RETURN(std::string target, expressions_.ExpectName());
      targets.push_back(std::move(target));
    } while (expressions_.SkipOperator(","));
    if (in_parentheses) ASSAY_RETURN_IF_ERROR(expressions_.ExpectOperator(")"));
    return targets;
  }

  absl::StatusOr<Stmt> Set() {
    Stmt statement = Make(Stmt::Kind::kSet);
    expressions_.Advance();
    ASSAY_ASSIGN_OR_RETURN(statement.targets, Targets());
    if (statement.targets.size() == 1 && expressions_.SkipOperator(".")) {
      ASSAY_ASSIGN_OR_RETURN(statement.member, expressions_.ExpectName());
    }
    if (expressions_.SkipOperator("=")) {
      ASSAY_ASSIGN_OR_RETURN(statement.value, expressions_.ExpressionOrTuple());
      ASSAY_RETURN_IF_ERROR(ExpectBlockEnd());
      return statement;
    }
    if (statement.targets.size() != 1 || !statement.member.empty()) {
      return expressions_.Unexpected("'='");
    }
    statement.kind = Stmt::Kind::kSetBlock;
    ASSAY_RETURN_IF_ERROR(BodyToEnd("endset", &statement));
    return statement;
  }

  absl::StatusOr<Stmt> Macro() {
    Stmt statement = Make(Stmt::Kind::kMacro);
    expressions_.Advance();
    ASSAY_ASSIGN_OR_RETURN(statement.text, expressions_.ExpectName());
    ASSAY_RETURN_IF_ERROR(expressions_.ExpectOperator("("));
    while (!expressions_.IsOperator(")")) {
      ASSAY_ASSIGN_OR_RETURN(std::string parameter, expressions_.ExpectName());
      statement.targets.push_back(std::move(parameter));
      if (expressions_.SkipOperator("=")) {
        ASSAY_ASSIGN_OR_RETURN(ExprPtr value, expressions_.Expression());
        statement.defaults.push_back(std::move(value));
      } else if (!statement.defaults.empty()) {
        return expressions_.Unexpected("'=': the parameter before has a default");
      }
      if (!expressions_.SkipOperator(",")) break;
    }
    ASSAY_RETURN_IF_ERROR(expressions_.ExpectOperator(")"));
    const int loops_outside = std::exchange(loops_, 0);
    const absl::Status body = BodyToEnd("endmacro", &statement);
    loops_ = loops_outside;
    ASSAY_RETURN_IF_ERROR(body);
    return statement;
  }

  ExpressionParser expressions_;
  int nesting_ = 0;
  int loops_ = 0;  // around the current block, in the same macro
};

}  // namespace

absl::StatusOr<std::vector<Stmt>> ParseTemplate(std::string_view source) {
  ASSAY_ASSIGN_OR_RETURN(std::vector<LexerToken> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace assay::engine::jinja
