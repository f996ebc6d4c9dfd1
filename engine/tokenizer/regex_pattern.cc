// CompileRegex: Oniguruma's syntax, as far as PCRE2 gives it the same meaning, run by PCRE2.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>

#include "base/status.h"
#include "engine/tokenizer/pattern.h"

namespace assay::engine {
namespace {

constexpr size_t kMaxRegexBytes = 16 << 10;
constexpr uint32_t kMatchLimit = 1'000'000;  // steps of one search; honest patterns need dozens

// White_Space and its complement. PCRE2's own \s also takes U+180E.
constexpr char kSpaceRanges[] =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr char kNonSpaceRanges[] =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";

// What a backslash makes a plain character of, in both engines.
bool IsQuotable(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x80 && !std::isalnum(byte);
}

// Rewrites a pattern and refuses what the two engines read differently.
class Translator {
 public:
  explicit Translator(const std::string& regex) : regex_(regex) {}

  absl::StatusOr<std::string> Translate() {
    while (i_ < regex_.size()) {
      const char c = regex_[i_];
      if (c == '\\') {
        ASSAY_RETURN_IF_ERROR(Escape());
      } else if (in_class_) {
        ASSAY_RETURN_IF_ERROR(InClass());
      } else if (c == '[') {
        in_class_ = true;
        class_is_empty_ = true;
        Copy(StartsWith("[^") ? 2 : 1);
      } else if (c == '(') {
        ASSAY_RETURN_IF_ERROR(Group());
      } else if (c == '^' || c == '$') {
        return Refuse("anchors");  // they match at every line in Oniguruma
      } else if (c == '{') {
        ASSAY_RETURN_IF_ERROR(Interval());
      } else {
        Copy(1);
      }
    }
    if (ignores_case_) ASSAY_RETURN_IF_ERROR(CheckCaseFolding());
    return out_;
  }

 private:
  bool StartsWith(std::string_view piece) const {
    return std::string_view(regex_).substr(i_, piece.size()) == piece;
  }

  void Copy(size_t num_bytes) {
    out_.append(regex_, i_, num_bytes);
    i_ += num_bytes;
  }

  absl::Status Refuse(std::string_view what) const {
    return InvalidArgument("at byte {}: {} not supported in a Split pattern", i_, what);
  }

  absl::Status Escape() {
    if (i_ + 1 >= regex_.size()) return Refuse("a backslash at the end is");
    const char c = regex_[i_ + 1];
    if (c == 's' || c == 'S') {
      const char* const ranges = c == 's' ? kSpaceRanges : kNonSpaceRanges;
      out_ += in_class_ ? std::string(ranges) : fmt::format("[{}]", ranges);
      i_ += 2;
    } else if (c == 'p' || c == 'P') {
      const size_t close = regex_.find('}', i_);
      if (i_ + 2 >= regex_.size() || regex_[i_ + 2] != '{' || close == std::string::npos) {
        return Refuse("\\p without braces is");
      }
      Copy(close + 1 - i_);
    } else if (c == 'x') {
      const size_t close = regex_.find('}', i_);
      if (i_ + 2 >= regex_.size() || regex_[i_ + 2] != '{' || close == std::string::npos) {
        return Refuse("\\x without braces is");  // a raw byte in Oniguruma
      }
      Copy(close + 1 - i_);
    } else if (std::string_view("dDrntf").find(c) != std::string_view::npos || IsQuotable(c)) {
      Copy(2);
    } else {
      return Refuse(fmt::format("\\{} is", c));
    }
    class_is_empty_ = false;
    return absl::OkStatus();
  }

  absl::Status InClass() {
    if (StartsWith("&&")) return Refuse("the intersection of classes is");
    if (regex_[i_] == '[') return Refuse("a class in a class is");
    if (regex_[i_] == ']') {
      if (class_is_empty_) return Refuse("] as the first of a class is");
      in_class_ = false;
    }
    class_is_empty_ = false;
    Copy(1);
    return absl::OkStatus();
  }

  absl::Status Group() {
    constexpr std::string_view kGroups[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    for (const std::string_view group : kGroups) {
      if (StartsWith(group)) {
        Copy(group.size());
        return absl::OkStatus();
      }
    }
    if (StartsWith("(?i:")) {
      ignores_case_ = true;
      Copy(4);
      return absl::OkStatus();
    }
    if (StartsWith("(?") || StartsWith("(*")) return Refuse("this kind of group is");
    Copy(1);
    return absl::OkStatus();
  }

  // {n}, {n,}, {n,m}. Oniguruma also has {,m}, and reads a + behind it as a repetition.
  absl::Status Interval() {
    const size_t close = regex_.find('}', i_);
    const bool has_digit = i_ + 1 < regex_.size() && regex_[i_ + 1] >= '0' && regex_[i_ + 1] <= '9';
    if (!has_digit || close == std::string::npos) return Refuse("{ without a number is");
    if (close + 1 < regex_.size() && regex_[close + 1] == '+') return Refuse("{n,m}+ is");
    Copy(close + 1 - i_);
    return absl::OkStatus();
  }

  // Oniguruma lets "ss" match U+00DF and the like; PCRE2 folds single characters only.
  absl::Status CheckCaseFolding() const {
    constexpr std::string_view kFolded[] = {"ss", "ff", "fi", "fl", "st"};
    std::string lower;
    for (const char c : regex_) {
      if (static_cast<unsigned char>(c) >= 0x80) return Refuse("(?i:...) beside non-ASCII text is");
      lower.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
    }
    for (const std::string_view pair : kFolded) {
      if (lower.find(pair) != std::string::npos) {
        return Refuse(fmt::format("(?i:...) in a pattern with \"{}\" is", pair));
      }
    }
    return absl::OkStatus();
  }

  const std::string& regex_;
  std::string out_;
  size_t i_ = 0;
  bool in_class_ = false;
  bool class_is_empty_ = false;
  bool ignores_case_ = false;
};

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* object) const noexcept {
    kFree(object);
  }
};
using Code = std::unique_ptr<pcre2_code, Free<pcre2_code_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Free<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;

class RegexPattern final : public Pattern {
 public:
  RegexPattern(Code code, MatchContext context)
      : code_(std::move(code)), context_(std::move(context)) {}

  bool Find(std::string_view text, size_t from, PatternMatch* match) const override {
    // Patterns are shared by threads and match data is not. An allocation per match is nothing
    // beside the search.
    const MatchData data(pcre2_match_data_create(1, nullptr));
    const auto search = [&](uint32_t options) {
      return pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                         PCRE2_NO_UTF_CHECK | options, data.get(), context_.get());
    };
    int result = search(0);
    // The interpreter keeps its state on the heap, where compiled code has 32 KiB of stack.
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = search(PCRE2_NO_JIT);
    if (result < 0) return false;
    const size_t* const offsets = pcre2_get_ovector_pointer(data.get());
    *match = {offsets[0], offsets[1]};
    return true;
  }

 private:
  const Code code_;
  const MatchContext context_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Pattern>> CompileRegex(const std::string& regex) {
  if (regex.size() > kMaxRegexBytes) {
    return InvalidArgument("a pattern of {} bytes; the limit is {}", regex.size(), kMaxRegexBytes);
  }
  ASSAY_ASSIGN_OR_RETURN(const std::string translated, Translator(regex).Translate());

  const CompileContext compile_context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(compile_context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  size_t error_offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                          PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &error_offset,
                          compile_context.get()));
  if (code == nullptr) {
    std::array<PCRE2_UCHAR, 256> message{};
    pcre2_get_error_message(error, message.data(), message.size());
    return InvalidArgument("not a regular expression: {}",
                           reinterpret_cast<const char*>(message.data()));
  }
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT, it is interpreted

  MatchContext match_context(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(match_context.get(), kMatchLimit);
  return std::make_unique<RegexPattern>(std::move(code), std::move(match_context));
}

}  // namespace assay::engine
