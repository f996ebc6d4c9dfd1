// The regular expressions of Split pre-tokenizers.
//
// The reference runs them with Oniguruma. Here the patterns of the families that are served (GPT-2,
// Qwen2, Llama 3, DeepSeek-V3) are recognised by their text and run by scanners written for them,
// several times faster than a regex engine; anything else runs in PCRE2. The two agree: a test
// compares each scanner with PCRE2 on random and adversarial text.
//
// A pattern that PCRE2 would read differently from Oniguruma is refused, not approximated.
#pragma once

#include <absl/status/statusor.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace assay::engine {

// Byte offsets into the text searched.
struct PatternMatch {
  size_t begin;
  size_t end;
};

// Immutable; thread-safe.
class Pattern {
 public:
  virtual ~Pattern() = default;

  // Finds the first match that begins at `from` or later in `text` (valid UTF-8; `from` is at a
  // character). The text before `from` is seen by look-behind.
  virtual bool Find(std::string_view text, size_t from, PatternMatch* match) const = 0;
};

// The scanner for `regex`, or null when there is none.
std::unique_ptr<Pattern> MakeKnownPattern(std::string_view regex);

// `regex` in PCRE2 with the meaning Oniguruma gives it. INVALID_ARGUMENT says what is wrong or not
// supported, and where. A search that exceeds PCRE2's match limit (a hostile pattern) finds
// nothing.
absl::StatusOr<std::unique_ptr<Pattern>> CompileRegex(const std::string& regex);

// Matches the literal text.
std::unique_ptr<Pattern> MakeLiteralPattern(std::string literal);

// The patterns with scanners, as tokenizer.json writes them.
namespace known_patterns {
inline constexpr char kGpt2[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr char kQwen2[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr char kLlama3[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// DeepSeek-V3 is a sequence of three.
inline constexpr char kDigitTriples[] = R"(\p{N}{1,3})";
inline constexpr char kChineseAndKana[] = "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+";
inline constexpr char kDeepSeekV3[] = R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^)"
                                      "\r\n"
                                      R"(\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[)"
                                      "\r\n"
                                      R"(]*|\s*[)"
                                      "\r\n"
                                      R"(]+|\s+(?!\S)|\s+)";
}  // namespace known_patterns

}  // namespace assay::engine
