#include "worker/grading/number.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "worker/grading/answer.h"

namespace assay::worker {
namespace {

constexpr size_t kMaxDigits = 400;
constexpr int kDecimalsOfAnApproximation = 6;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

std::string WithoutLeadingZeros(std::string digits) {
  digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size()));
  return digits;
}

// Product of two digit strings, schoolbook: at most 400 digits each.
std::string Multiply(const std::string& a, const std::string& b) {
  std::vector<int> sums(a.size() + b.size(), 0);  // lowest digit first
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < b.size(); ++j) {
      sums[i + j] += (a[a.size() - 1 - i] - '0') * (b[b.size() - 1 - j] - '0');
    }
  }
  std::string digits(sums.size(), '0');
  int carry = 0;
  for (size_t i = 0; i < sums.size(); ++i) {
    carry += sums[i];
    digits[sums.size() - 1 - i] = static_cast<char>('0' + carry % 10);
    carry /= 10;
  }
  return WithoutLeadingZeros(std::move(digits));
}

double Approximately(const Number& number) {
  const double value = std::strtod(("0" + number.numerator).c_str(), nullptr) /
                       std::strtod(number.denominator.c_str(), nullptr);
  return number.negative ? -value : value;
}

// Reads a number from the front of a text.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}

  std::string_view rest() const { return rest_; }

  bool Take(std::string_view token) {
    if (!rest_.starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }
  void SkipSpaces() {
    while (Take(" ")) {
    }
  }

  // Sign and currency in either order.
  bool TakeSign() {
    bool negative = false;
    for (int i = 0; i < 3; ++i) {
      SkipSpaces();
      if (Take("-")) {
        negative = !negative;
      } else if (!Take("+") && !Take("$") && !Take("€") && !Take("£") && !Take("¥") && !Take("₹")) {
        break;
      }
    }
    SkipSpaces();
    return negative;
  }

  // Digits with thousands separators and a decimal part, or a fraction, or a mixed number.
  std::optional<Number> TakeMagnitude() {
    if (rest_.starts_with("\\frac")) return TakeFraction();
    std::optional<Number> number = TakeDecimal();
    if (!number.has_value() || number->num_decimals > 0) return number;
    // "3/4", "1 1/2", "1\frac{1}{2}".
    Scanner ahead = *this;
    if (ahead.Take("/") || ahead.Take(" / ")) {
      if (std::string digits = ahead.TakeDigits(); !digits.empty()) {
        digits = WithoutLeadingZeros(std::move(digits));
        if (digits.empty()) return std::nullopt;
        number->denominator = std::move(digits);
        *this = ahead;
      }
      return number;
    }
    ahead.SkipSpaces();
    if (std::optional<Number> part = ahead.TakeProperFraction()) {
      *this = ahead;
      return AddFraction(*number, *part);
    }
    return number;
  }

 private:
  std::string TakeDigits() {
    size_t n = 0;
    while (n < rest_.size() && n <= kMaxDigits && IsDigit(rest_[n])) ++n;
    std::string digits(rest_.substr(0, n));
    rest_.remove_prefix(n);
    return digits;
  }

  // ",234" or " 234": a separator with exactly three digits behind it.
  bool NextIsGroup(char separator) const {
    if (rest_.size() < 4 || rest_[0] != separator) return false;
    for (size_t i = 1; i < 4; ++i) {
      if (!IsDigit(rest_[i])) return false;
    }
    return rest_.size() == 4 || !IsDigit(rest_[4]);
  }

  std::optional<Number> TakeDecimal() {
    std::string digits = TakeDigits();
    const bool has_integer_part = !digits.empty();
    if (has_integer_part && digits.size() <= 3) {
      // "1, 234" with a blank is written too; a list of two numbers would look the same and is
      // no answer to a question that has one number.
      const char separator = rest_.empty() ? '\0' : rest_[0];
      if (separator == ',' || separator == ' ') {
        while (digits.size() < kMaxDigits && NextIsGroup(separator)) {
          digits += rest_.substr(1, 3);
          rest_.remove_prefix(4);
        }
      }
    }
    Number number;
    std::string decimals;
    const bool point =
        rest_.size() >= 2 && (rest_[0] == '.' || rest_[0] == ',') && IsDigit(rest_[1]);
    if (point && (rest_[0] == '.' || has_integer_part)) {
      rest_.remove_prefix(1);
      decimals = TakeDigits();
    } else if (has_integer_part && rest_ == ".") {
      rest_.remove_prefix(1);
    }
    if (digits.empty() && decimals.empty()) return std::nullopt;
    if (digits.size() + decimals.size() > kMaxDigits) return std::nullopt;
    number.num_decimals = static_cast<int>(decimals.size());
    number.denominator = "1" + std::string(decimals.size(), '0');
    number.numerator = WithoutLeadingZeros(digits + decimals);
    return number;
  }

  // "{12}", "{-12}", or one digit as in \\frac12. Empty when there is none.
  std::string TakeArgument(bool* negative) {
    SkipSpaces();
    if (Take("{")) {
      SkipSpaces();
      if (Take("-")) *negative = !*negative;
      std::string digits = TakeDigits();
      SkipSpaces();
      return Take("}") ? digits : "";
    }
    if (rest_.empty() || !IsDigit(rest_[0])) return "";
    std::string digit(rest_.substr(0, 1));
    rest_.remove_prefix(1);
    return digit;
  }

  std::optional<Number> TakeFraction() {
    Scanner ahead = *this;
    if (!ahead.Take("\\frac")) return std::nullopt;
    Number number;
    number.numerator = ahead.TakeArgument(&number.negative);
    number.denominator = WithoutLeadingZeros(ahead.TakeArgument(&number.negative));
    if (number.numerator.empty() || number.denominator.empty()) return std::nullopt;
    number.numerator = WithoutLeadingZeros(std::move(number.numerator));
    *this = ahead;
    return number;
  }

  std::optional<Number> TakeProperFraction() {
    if (rest_.starts_with("\\frac")) return TakeFraction();
    Scanner ahead = *this;
    Number number;
    number.numerator = ahead.TakeDigits();
    if (number.numerator.empty() || !ahead.Take("/")) return std::nullopt;
    number.denominator = WithoutLeadingZeros(ahead.TakeDigits());
    if (number.denominator.empty()) return std::nullopt;
    number.numerator = WithoutLeadingZeros(std::move(number.numerator));
    *this = ahead;
    return number;
  }

  // whole + part, for whole an integer; small numbers only, as mixed numbers are.
  static std::optional<Number> AddFraction(const Number& whole, const Number& part) {
    if (part.negative || whole.numerator.size() > 9 || part.numerator.size() > 4 ||
        part.denominator.size() > 4) {
      return std::nullopt;
    }
    const long denominator = std::atol(part.denominator.c_str());
    const long numerator = std::atol(("0" + whole.numerator).c_str()) * denominator +
                           std::atol(("0" + part.numerator).c_str());
    Number sum;
    sum.numerator = WithoutLeadingZeros(std::to_string(numerator));
    sum.denominator = part.denominator;
    return sum;
  }

  std::string_view rest_;
};

// What may stand behind a number without changing it: words of two letters and more, symbols of
// units, degrees. A single letter may be a variable, unless it is a common unit.
bool IsUnit(std::string_view text) {
  constexpr std::string_view kUnitLetters = "mgshlLKCFNJWVA";
  constexpr std::string_view kBetweenUnits = " /.$()-'\"";
  size_t i = 0;
  while (i < text.size()) {
    const char c = text[i];
    // Beyond ASCII: degree signs, superscripts, words of other languages.
    if (kBetweenUnits.find(c) != std::string_view::npos || static_cast<unsigned char>(c) >= 0x80) {
      ++i;
    } else if (c == '^') {
      ++i;
      if (text.substr(i).starts_with("{\\circ}")) {
        i += 7;
      } else if (text.substr(i).starts_with("\\circ")) {
        i += 5;
      } else if (i < text.size() && (text[i] == '2' || text[i] == '3') && i >= 2 &&
                 std::isalpha(static_cast<unsigned char>(text[i - 2]))) {
        ++i;
      } else if (text.substr(i).starts_with("{2}") || text.substr(i).starts_with("{3}")) {
        i += 3;
      } else {
        return false;
      }
    } else if (std::isalpha(static_cast<unsigned char>(c)) != 0) {
      size_t end = i;
      while (end < text.size() && std::isalpha(static_cast<unsigned char>(text[end])) != 0) ++end;
      if (end - i == 1 && kUnitLetters.find(c) == std::string_view::npos) return false;
      i = end;
    } else {
      return false;
    }
  }
  return true;
}

std::optional<Number> TakeNumber(Scanner* scanner) {
  const bool negative = scanner->TakeSign();
  std::optional<Number> number = scanner->TakeMagnitude();
  if (!number.has_value()) return std::nullopt;
  number->negative ^= negative;
  if (number->numerator.empty()) number->negative = false;
  scanner->SkipSpaces();
  if (scanner->Take("%")) {
    number->denominator += "00";
    if (number->num_decimals > 0) number->num_decimals += 2;
  }
  return number;
}

}  // namespace

std::optional<Number> ParseNumber(std::string_view text) {
  std::string stripped = StripMarkup(text);
  if (const size_t equals = stripped.rfind('='); equals != std::string::npos) {
    stripped = StripMarkup(std::string_view(stripped).substr(equals + 1));
  }
  Scanner scanner(stripped);
  std::optional<Number> number = TakeNumber(&scanner);
  if (!number.has_value() || !IsUnit(scanner.rest())) return std::nullopt;
  return number;
}

std::optional<Number> FirstNumber(std::string_view text) {
  const std::string stripped = StripMarkup(text);
  for (size_t i = 0; i < stripped.size(); ++i) {
    const bool starts =
        IsDigit(stripped[i]) || std::string_view(stripped).substr(i).starts_with("\\frac");
    if (!starts) continue;
    // A sign belongs to the number; a hyphen inside a word does not.
    size_t begin = i;
    if (begin > 0 && stripped[begin - 1] == '$') --begin;
    if (begin > 0 && stripped[begin - 1] == '-') --begin;
    Scanner scanner(std::string_view(stripped).substr(begin));
    return TakeNumber(&scanner);
  }
  return std::nullopt;
}

bool SameValue(const Number& a, const Number& b) {
  if (a.negative == b.negative &&
      Multiply(a.numerator, b.denominator) == Multiply(b.numerator, a.denominator)) {
    return true;
  }
  if (std::max(a.num_decimals, b.num_decimals) < kDecimalsOfAnApproximation) return false;
  return std::abs(Approximately(a) - Approximately(b)) <= 1e-6;
}

}  // namespace assay::worker
