#include "engine/tokenizer/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/status.h"
#include "engine/tokenizer/jinja_value.h"
#include "engine/tokenizer/unicode.h"

namespace assay::engine::jinja {
namespace {

// Line breaks of all kinds become \n, and one at the very end is dropped.
std::string NormalizeNewlines(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      text += source[i];
    } else if (i + 1 == source.size() || source[i + 1] != '\n') {
      text += '\n';
    }
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

bool IsNameStart(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool IsNamePart(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormalizeNewlines(source)) {}

  absl::StatusOr<std::vector<LexerToken>> Run() {
    while (i_ < source_.size()) {
      const size_t tag = NextTag();
      AddText(tag);
      if (tag == source_.size()) break;
      i_ = tag;
      if (source_[tag + 1] == '#') {
        ASSAY_RETURN_IF_ERROR(SkipComment());
      } else if (source_[tag + 1] == '{') {
        ASSAY_RETURN_IF_ERROR(Tag("}}", TokenKind::kVariableBegin, TokenKind::kVariableEnd));
      } else if (size_t content = RawBegin(); content != 0) {
        ASSAY_RETURN_IF_ERROR(Raw(content));
      } else {
        ASSAY_RETURN_IF_ERROR(Tag("%}", TokenKind::kBlockBegin, TokenKind::kBlockEnd));
      }
    }
    Add(TokenKind::kEnd, "", source_.size());
    return std::move(tokens_);
  }

 private:
  bool At(std::string_view piece) const { return AtOffset(i_, piece); }
  bool AtOffset(size_t i, std::string_view piece) const {
    return std::string_view(source_).substr(i, piece.size()) == piece;
  }
  char Peek(size_t i) const { return i < source_.size() ? source_[i] : '\0'; }

  size_t SkipSpace(size_t i) const {
    const std::string_view rest = std::string_view(source_).substr(i);
    return i + (rest.size() - Strip(rest, "", Side::kLeft).size());
  }

  // Offsets mostly grow from call to call, so the count goes on from the last one.
  Position PositionOf(size_t offset) {
    if (offset < counted_) {
      counted_ = 0;
      position_ = Position();
    }
    for (; counted_ < offset; ++counted_) {
      if (source_[counted_] == '\n') {
        ++position_.line;
        position_.column = 1;
      } else if ((static_cast<uint8_t>(source_[counted_]) & 0xC0) != 0x80) {
        ++position_.column;
      }
    }
    return position_;
  }

  void Add(TokenKind kind, std::string text, size_t offset) {
    tokens_.push_back({kind, std::move(text), PositionOf(offset)});
  }

  // Where the next {{, {% or {# begins, or the end.
  size_t NextTag() const {
    for (size_t tag = source_.find('{', i_); tag != std::string::npos;
         tag = source_.find('{', tag + 1)) {
      const char kind = Peek(tag + 1);
      if (kind == '{' || kind == '%' || kind == '#') return tag;
    }
    return source_.size();
  }

  // The text up to `tag`, less what the tag's sign or lstrip_blocks takes.
  void AddText(size_t tag) {
    std::string_view text = std::string_view(source_).substr(i_, tag - i_);
    const char sign = Peek(tag + 2);
    if (tag < source_.size() && sign == '-') {
      text = Strip(text, "", Side::kRight);
    } else if (tag < source_.size() && sign != '+' && source_[tag + 1] != '{') {
      const size_t newline = text.rfind('\n');
      const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
      const bool tag_is_first = Strip(text.substr(line), "", Side::kLeft).empty();
      if ((line > 0 || at_line_start_) && tag_is_first) text = text.substr(0, line);
    }
    if (!text.empty()) Add(TokenKind::kText, std::string(text), i_);
  }

  // Goes behind a tag that ends at `end` ("-}}" has its sign at end - 3).
  void EndTag(size_t end, char sign, bool trims_newline) {
    i_ = end;
    if (sign == '-') {
      i_ = SkipSpace(end);
    } else if (sign != '+' && trims_newline && Peek(end) == '\n') {
      ++i_;
    }
    at_line_start_ = source_[i_ - 1] == '\n';
  }

  absl::Status SkipComment() {
    const size_t end = source_.find("#}", i_ + 2);
    if (end == std::string::npos) return ErrorAt(PositionOf(i_), "the comment has no end '#}'");
    EndTag(end + 2, source_[end - 1], /*trims_newline=*/true);
    return absl::OkStatus();
  }

  // Behind "{% raw %}", or 0 when something else is at i_.
  size_t RawBegin() const {
    size_t i = i_ + 2;
    if (Peek(i) == '-' || Peek(i) == '+') ++i;
    i = SkipSpace(i);
    if (!AtOffset(i, "raw")) return 0;
    i = SkipSpace(i + 3);
    if (AtOffset(i, "-%}")) return SkipSpace(i + 3);
    return AtOffset(i, "%}") ? i + 2 : 0;
  }

  absl::Status Raw(size_t content) {
    for (size_t tag = source_.find("{%", content); tag != std::string::npos;
         tag = source_.find("{%", tag + 1)) {
      const char sign = Peek(tag + 2);
      size_t i = SkipSpace(tag + 2 + (sign == '-' || sign == '+'));
      if (!AtOffset(i, "endraw")) continue;
      i = SkipSpace(i + 6);
      const char end_sign = Peek(i);
      if (end_sign == '-' || end_sign == '+') ++i;
      if (!AtOffset(i, "%}")) continue;
      i_ = content;
      at_line_start_ = source_[content - 1] == '\n';
      AddText(tag);
      EndTag(i + 2, end_sign, /*trims_newline=*/true);
      return absl::OkStatus();
    }
    return ErrorAt(PositionOf(i_), "{% raw %} has no {% endraw %}");
  }

  // The tokens of {{ ... }} or {% ... %}. Closing braces inside brackets belong to the expression.
  absl::Status Tag(std::string_view closing, TokenKind begin, TokenKind end) {
    const size_t start = i_;
    Add(begin, "", i_);
    i_ += 2;
    if (Peek(i_) == '-' || Peek(i_) == '+') ++i_;
    std::string brackets;  // those open, as the closing ones they need
    while (true) {
      i_ = SkipSpace(i_);
      if (i_ >= source_.size()) {
        return ErrorAt(PositionOf(start), fmt::format("the tag has no end '{}'", closing));
      }
      if (brackets.empty()) {
        const char sign = Peek(i_);
        const bool is_block = end == TokenKind::kBlockEnd;
        const bool is_signed =
            (sign == '-' || (sign == '+' && is_block)) && AtOffset(i_ + 1, closing);
        if (is_signed || At(closing)) {
          Add(end, "", i_);
          EndTag(i_ + (is_signed ? 3 : 2), is_signed ? sign : '\0', is_block);
          return absl::OkStatus();
        }
      }
      ASSAY_RETURN_IF_ERROR(NextToken(&brackets));
    }
  }

  absl::Status NextToken(std::string* brackets) {
    const size_t start = i_;
    const char c = source_[i_];
    if (IsNameStart(c)) {
      while (IsNamePart(Peek(i_))) ++i_;
      Add(TokenKind::kName, source_.substr(start, i_ - start), start);
      return absl::OkStatus();
    }
    if (IsDigit(c)) {
      Number();
      return absl::OkStatus();
    }
    if (c == '\'' || c == '"') return String(c);
    constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                               "*",  "%",  "~",  "(",  ")",  "[",  "]", "{", "}",
                                               ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (const std::string_view op : kOperators) {
      if (!At(op)) continue;
      ASSAY_RETURN_IF_ERROR(TrackBrackets(op[0], brackets));
      Add(TokenKind::kOperator, std::string(op), start);
      i_ += op.size();
      return absl::OkStatus();
    }
    return ErrorAt(PositionOf(start),
                   fmt::format("unexpected character '{}'",
                               source_.substr(start, DecodeChar(&source_[start]).num_bytes)));
  }

  absl::Status TrackBrackets(char c, std::string* brackets) {
    if (c == '(') *brackets += ')';
    if (c == '[') *brackets += ']';
    if (c == '{') *brackets += '}';
    if (c != ')' && c != ']' && c != '}') return absl::OkStatus();
    if (brackets->empty() || brackets->back() != c) {
      return ErrorAt(PositionOf(i_), fmt::format("'{}' closes nothing", c));
    }
    brackets->pop_back();
    return absl::OkStatus();
  }

  void Number() {
    const size_t start = i_;
    while (IsDigit(Peek(i_)) || (Peek(i_) == '_' && IsDigit(Peek(i_ + 1)))) ++i_;
    TokenKind kind = TokenKind::kInteger;
    if (Peek(i_) == '.' && IsDigit(Peek(i_ + 1))) {
      kind = TokenKind::kFloat;
      for (++i_; IsDigit(Peek(i_));) ++i_;
    }
    const size_t exponent = i_ + 1 + (Peek(i_ + 1) == '-' || Peek(i_ + 1) == '+');
    if ((Peek(i_) == 'e' || Peek(i_) == 'E') && IsDigit(Peek(exponent))) {
      kind = TokenKind::kFloat;
      for (i_ = exponent; IsDigit(Peek(i_));) ++i_;
    }
    std::string digits = source_.substr(start, i_ - start);
    digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
    Add(kind, std::move(digits), start);
  }

  absl::Status String(char quote) {
    const size_t start = i_++;
    std::string text;
    while (true) {
      if (i_ >= source_.size()) return ErrorAt(PositionOf(start), "the string has no end");
      const char c = source_[i_++];
      if (c == quote) break;
      if (c != '\\') {
        text += c;
      } else if (i_ < source_.size()) {
        ASSAY_RETURN_IF_ERROR(Escape(&text));
      }
    }
    Add(TokenKind::kString, std::move(text), start);
    return absl::OkStatus();
  }

  // As in Python: an escape that is none keeps its backslash.
  absl::Status Escape(std::string* text) {
    constexpr std::array<std::pair<char, char>, 10> kSimple = {{{'n', '\n'},
                                                                {'t', '\t'},
                                                                {'r', '\r'},
                                                                {'\\', '\\'},
                                                                {'\'', '\''},
                                                                {'"', '"'},
                                                                {'a', '\a'},
                                                                {'b', '\b'},
                                                                {'f', '\f'},
                                                                {'v', '\v'}}};
    const size_t start = i_ - 1;
    const char c = source_[i_++];
    for (const auto& [letter, meaning] : kSimple) {
      if (c == letter) {
        *text += meaning;
        return absl::OkStatus();
      }
    }
    if (c == '\n') return absl::OkStatus();  // a line continued
    const size_t num_digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (num_digits == 0) {
      *text += {'\\', c};
      return absl::OkStatus();
    }
    char32_t code_point = 0;
    for (size_t k = 0; k < num_digits; ++k, ++i_) {
      const char digit = Peek(i_);
      if (!std::isxdigit(static_cast<unsigned char>(digit))) {
        return ErrorAt(PositionOf(start), fmt::format("\\{} needs {} digits", c, num_digits));
      }
      const int value = IsDigit(digit) ? digit - '0' : (digit | 0x20) - 'a' + 10;
      code_point = (code_point << 4) | static_cast<char32_t>(value);
    }
    if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point <= 0xDFFF)) {
      return ErrorAt(PositionOf(start), "the escape is no character");
    }
    AppendUtf8(code_point, text);
    return absl::OkStatus();
  }

  const std::string source_;
  size_t i_ = 0;
  bool at_line_start_ = true;  // the tag before ended with a line break
  std::vector<LexerToken> tokens_;
  size_t counted_ = 0;  // PositionOf: position_ is that of this offset
  Position position_;
};

}  // namespace

absl::Status ErrorAt(Position position, std::string_view what) {
  return InvalidArgument("line {}, column {}: {}", position.line, position.column, what);
}

absl::StatusOr<std::vector<LexerToken>> Tokenize(std::string_view source) {
  if (ValidUtf8Prefix(source) != source.size()) {
    return InvalidArgument("the template is not UTF-8");
  }
  return Lexer(source).Run();
}

}  // namespace assay::engine::jinja
