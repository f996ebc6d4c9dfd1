// Cuts a template into text and tokens, with the white-space rules that transformers sets:
// trim_blocks (the line break behind a block vanishes), lstrip_blocks (so do blanks before a block
// that begins its line), and the signs '-' and '+' inside the braces, which override both.
#pragma once

#include <absl/status/statusor.h>

#include <string>
#include <string_view>
#include <vector>

namespace assay::engine::jinja {

struct Position {
  int line = 1;
  int column = 1;  // in characters
};

// An INVALID_ARGUMENT "line L, column C: what".
absl::Status ErrorAt(Position position, std::string_view what);

enum class TokenKind {
  kText,           // to be printed
  kVariableBegin,  // {{
  kVariableEnd,
  kBlockBegin,  // {%
  kBlockEnd,
  kName,
  kString,  // text: what it means, escapes resolved
  kInteger,
  kFloat,
  kOperator,
  kEnd,  // of the template
};

struct LexerToken {
  TokenKind kind;
  std::string text;
  Position position;
};

// `source` must be valid UTF-8. The last token is kEnd.
absl::StatusOr<std::vector<LexerToken>> Tokenize(std::string_view source);

}  // namespace assay::engine::jinja
