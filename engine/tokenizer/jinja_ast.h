// The parsed form of a template.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/tokenizer/jinja_lexer.h"
#include "engine/tokenizer/jinja_value.h"

namespace assay::engine::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  enum class Kind {
    kLiteral,      // literal
    kName,         // name
    kList,         // operands; a tuple is a list
    kDict,         // operands: key, value, key, value, ...
    kNot,          // operand
    kNegate,       // operand
    kPlus,         // operand: the sign +
    kAnd,          // two operands
    kOr,           // two operands
    kBinary,       // name is the operator: + - * / // % ** ~
    kCompare,      // operands a, b, c; operators: a < b <= c; "in" and "not in" are operators
    kConditional,  // operands: value, condition, and perhaps the value otherwise
    kAttribute,    // operand.name
    kSubscript,    // operands[0][operands[1]]
    kSlice,        // operands: object, start, stop, step; null where left out
    kCall,         // operands: callee, arguments
    kFilter,       // operand | name(arguments)
    kTest,         // operand is name(arguments)
  };

  Kind kind;
  Position position;
  int depth = 1;  // of the tree below, itself included
  std::string name;
  Value literal;
  std::vector<ExprPtr> operands;
  std::vector<std::pair<std::string, ExprPtr>> keywords;  // of a call, filter or test
  std::vector<std::string> operators;
};

struct Stmt {
  enum class Kind {
    kText,      // text
    kOutput,    // value
    kIf,        // conditions and bodies; one body more when there is an else
    kFor,       // targets in value [if condition]; bodies: loop, else
    kSet,       // targets = value, or name.member = value
    kSetBlock,  // target = the output of the body
    kMacro,     // name(parameters); defaults belong to the last parameters
    kBreak,
    kContinue,
    kScope,  // a body with variables of its own
  };

  Kind kind;
  Position position;
  std::string text;                  // kText; kMacro: the name
  std::vector<std::string> targets;  // kFor, kSet; kMacro: the parameters
  std::string member;                // kSet: of a namespace
  ExprPtr value;
  ExprPtr condition;
  std::vector<ExprPtr> conditions;
  std::vector<ExprPtr> defaults;
  std::vector<std::vector<Stmt>> bodies;
};

}  // namespace assay::engine::jinja
