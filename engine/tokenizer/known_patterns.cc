// Scanners for the patterns in pattern.h. Each follows its regular expression alternative by
// alternative, in order; where the expression backtracks, the outcome is worked out here.
#include "engine/tokenizer/pattern.h"
#include "engine/tokenizer/unicode.h"

namespace assay::engine {
namespace {

struct Char {
  char32_t code_point;
  uint8_t char_class;
  size_t num_bytes;  // 0 at the end of the text
};

struct SpaceRun {
  size_t end;
  size_t last;           // where the last space of the run begins
  size_t after_newline;  // behind the last \r or \n of the run; 0 when there is none
};

// The text with what the scanners ask of it.
class Text {
 public:
  explicit Text(std::string_view text) : text_(text) {}

  size_t size() const { return text_.size(); }

  Char At(size_t i) const {
    if (i >= text_.size()) return {0, 0, 0};
    const DecodedChar c = DecodeChar(text_.data() + i);
    return {c.code_point, classes_[c.code_point], c.num_bytes};
  }

  // The end of the run of characters from `i` that `accepts` takes, at most `max_chars` of them.
  template <typename Accepts>
  size_t RunEnd(size_t i, const Accepts& accepts, size_t max_chars = SIZE_MAX) const {
    for (; max_chars > 0; --max_chars) {
      const Char c = At(i);
      if (c.num_bytes == 0 || !accepts(c)) break;
      i += c.num_bytes;
    }
    return i;
  }

  size_t RunOf(uint8_t classes, size_t i, size_t max_chars = SIZE_MAX) const {
    return RunEnd(
        i, [classes](const Char& c) { return (c.char_class & classes) != 0; }, max_chars);
  }

  size_t RunOfNewlines(size_t i) const {
    while (i < text_.size() && (text_[i] == '\r' || text_[i] == '\n')) ++i;
    return i;
  }

  // 's|'t|'re|'ve|'m|'ll|'d with an apostrophe at `i`: the end of the match, or `i`.
  size_t ContractionEnd(size_t i, bool ignore_case) const {
    const auto letter = [&](size_t k) {
      if (i + k >= text_.size()) return '\0';
      const char c = text_[i + k];
      return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    };
    const char first = letter(1);
    const char second = letter(2);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return i + 2;
    if ((first == 'r' || first == 'v') && second == 'e') return i + 3;
    if (first == 'l' && second == 'l') return i + 3;
    // The long s (U+017F) is an s when case is ignored.
    if (ignore_case && first == '\xC5' && second == '\xBF') return i + 3;
    return i;
  }

  // \s+(?!\S)|\s+ at `i`, which is a space: all but the last space of a run, unless the run is one
  // space or ends the text.
  size_t SpacesEnd(size_t i) const { return SpacesEnd(i, RunOfSpaces(i)); }

  // \s*[\r\n]+|\s+(?!\S)|\s+ at `i`, which is a space: up to the last line break of the run, else
  // as SpacesEnd.
  size_t SpacesOrNewlinesEnd(size_t i) const {
    const SpaceRun run = RunOfSpaces(i);
    return run.after_newline != 0 ? run.after_newline : SpacesEnd(i, run);
  }

 private:
  SpaceRun RunOfSpaces(size_t i) const {
    SpaceRun run{i, i, 0};
    for (Char c = At(i); c.char_class & kSpace; c = At(run.end)) {
      run.last = run.end;
      run.end += c.num_bytes;
      if (c.code_point == '\r' || c.code_point == '\n') run.after_newline = run.end;
    }
    return run;
  }

  size_t SpacesEnd(size_t i, const SpaceRun& run) const {
    return run.end == text_.size() || run.last == i ? run.end : run.last;
  }

  const std::string_view text_;
  const CharClasses& classes_ = CharClasses::Get();
};

bool IsNewline(const Char& c) { return c.code_point == '\r' || c.code_point == '\n'; }

// What [^\s\p{L}\p{N}] accepts.
bool IsOther(const Char& c) {
  return c.num_bytes != 0 && !(c.char_class & (kSpace | kLetter | kNumber));
}

// GPT-2, which is also the pattern inside ByteLevel. Matches everywhere.
class Gpt2Pattern final : public Pattern {
 public:
  bool Find(std::string_view string, size_t from, PatternMatch* match) const override {
    if (from >= string.size()) return false;
    *match = {from, MatchEnd(Text(string), from)};
    return true;
  }

 private:
  static size_t MatchEnd(const Text& text, size_t i) {
    const Char first = text.At(i);
    if (first.code_point == '\'') {
      const size_t end = text.ContractionEnd(i, /*ignore_case=*/false);
      if (end != i) return end;
    }
    // An optional blank (not any space), then a run of one kind.
    const size_t start = first.code_point == ' ' ? i + 1 : i;
    const Char next = text.At(start);
    if (next.char_class & kLetter) return text.RunOf(kLetter, start);
    if (next.char_class & kNumber) return text.RunOf(kNumber, start);
    if (IsOther(next)) return text.RunEnd(start, IsOther);
    return text.SpacesEnd(i);
  }
};

// Qwen2, and Llama 3, which differ in the length of a number. Matches everywhere.
class Qwen2Pattern final : public Pattern {
 public:
  explicit Qwen2Pattern(size_t max_digits) : max_digits_(max_digits) {}

  bool Find(std::string_view string, size_t from, PatternMatch* match) const override {
    if (from >= string.size()) return false;
    *match = {from, MatchEnd(Text(string), from)};
    return true;
  }

 private:
  size_t MatchEnd(const Text& text, size_t i) const {
    const Char first = text.At(i);
    if (first.char_class & kLetter) return text.RunOf(kLetter, i);
    if (first.code_point == '\'') {
      const size_t end = text.ContractionEnd(i, /*ignore_case=*/true);
      if (end != i) return end;
    }
    if (first.char_class & kNumber) return text.RunOf(kNumber, i, max_digits_);
    const size_t second = i + first.num_bytes;
    if (!IsNewline(first) && (text.At(second).char_class & kLetter)) {
      return text.RunOf(kLetter, second);
    }
    const size_t start = first.code_point == ' ' ? second : i;
    if (IsOther(text.At(start))) return text.RunOfNewlines(text.RunEnd(start, IsOther));
    return text.SpacesOrNewlinesEnd(i);
  }

  const size_t max_digits_;
};

// The last of DeepSeek-V3's three patterns. Digits and control characters may match nothing.
class DeepSeekV3Pattern final : public Pattern {
 public:
  bool Find(std::string_view string, size_t from, PatternMatch* match) const override {
    const Text text(string);
    for (size_t i = from; i < string.size(); i += text.At(i).num_bytes) {
      const size_t end = MatchEnd(text, i);
      if (end != i) {
        *match = {i, end};
        return true;
      }
    }
    return false;
  }

 private:
  static bool IsAsciiLetter(const Char& c) {
    return (c.code_point >= 'A' && c.code_point <= 'Z') ||
           (c.code_point >= 'a' && c.code_point <= 'z');
  }

  static size_t MatchEnd(const Text& text, size_t i) {
    constexpr uint8_t kWord = kLetter | kMark;
    constexpr uint8_t kSign = kPunctuation | kSymbol;
    const Char first = text.At(i);
    const size_t second = i + first.num_bytes;
    // [!"#$...~][A-Za-z]+: the class is all of ASCII's punctuation and symbols.
    if (first.code_point < 0x80 && (first.char_class & kSign)) {
      const size_t end = text.RunEnd(second, IsAsciiLetter);
      if (end != second) return end;
    }
    if (first.char_class & kWord) return text.RunOf(kWord, i);
    if (!IsNewline(first) && !(first.char_class & kSign) && (text.At(second).char_class & kWord)) {
      return text.RunOf(kWord, second);
    }
    const size_t start = first.code_point == ' ' ? second : i;
    if (text.At(start).char_class & kSign) {
      return text.RunOfNewlines(text.RunOf(kSign, start));
    }
    return first.char_class & kSpace ? text.SpacesOrNewlinesEnd(i) : i;
  }
};

// A run, of bounded length, of what `Accepts` takes.
template <typename Accepts>
class RunPattern final : public Pattern {
 public:
  explicit RunPattern(size_t max_chars) : max_chars_(max_chars) {}

  bool Find(std::string_view string, size_t from, PatternMatch* match) const override {
    const Text text(string);
    const size_t begin = text.RunEnd(from, [](const Char& c) { return !Accepts()(c); });
    if (begin >= string.size()) return false;
    *match = {begin, text.RunEnd(begin, Accepts(), max_chars_)};
    return true;
  }

 private:
  const size_t max_chars_;
};

struct IsNumber {
  bool operator()(const Char& c) const { return (c.char_class & kNumber) != 0; }
};
struct IsChineseOrKana {
  bool operator()(const Char& c) const {
    return (c.code_point >= 0x4E00 && c.code_point <= 0x9FA5) ||
           (c.code_point >= 0x3040 && c.code_point <= 0x30FF);
  }
};

class LiteralPattern final : public Pattern {
 public:
  explicit LiteralPattern(std::string literal) : literal_(std::move(literal)) {}

  bool Find(std::string_view text, size_t from, PatternMatch* match) const override {
    const size_t begin = text.find(literal_, from);
    if (begin == std::string_view::npos) return false;
    *match = {begin, begin + literal_.size()};
    return true;
  }

 private:
  const std::string literal_;
};

}  // namespace

std::unique_ptr<Pattern> MakeKnownPattern(std::string_view regex) {
  if (regex == known_patterns::kGpt2) return std::make_unique<Gpt2Pattern>();
  if (regex == known_patterns::kQwen2) return std::make_unique<Qwen2Pattern>(1);
  if (regex == known_patterns::kLlama3) return std::make_unique<Qwen2Pattern>(3);
  if (regex == known_patterns::kDigitTriples) return std::make_unique<RunPattern<IsNumber>>(3);
  if (regex == known_patterns::kChineseAndKana) {
    return std::make_unique<RunPattern<IsChineseOrKana>>(SIZE_MAX);
  }
  if (regex == known_patterns::kDeepSeekV3) return std::make_unique<DeepSeekV3Pattern>();
  return nullptr;
}

std::unique_ptr<Pattern> MakeLiteralPattern(std::string literal) {
  return std::make_unique<LiteralPattern>(std::move(literal));
}

}  // namespace assay::engine
