// Exact numbers of short answers, as GSM8K and AIME write them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace assay::worker {

// A rational number held exactly, of any size up to a few hundred digits.
struct Number {
  bool negative = false;
  std::string numerator;    // decimal digits without leading zeros; empty is 0
  std::string denominator;  // likewise, never 0
  int num_decimals = 0;     // digits after the point as written; 0 for an integer or fraction
};

// Reads all of `text` (StripMarkup is applied) as one number: sign, currency, digits with thousands
// separators (comma or space), decimal point or comma, \frac{a}{b}, a/b, mixed numbers, percent,
// and a unit behind it. Of an equation the right-hand side counts: "x = 5", "310 + 5 = 315".
// Empty for everything else: lists, expressions, powers, letters.
std::optional<Number> ParseNumber(std::string_view text);

// The first number that stands in a sentence: "59 dollars and nothing else".
std::optional<Number> FirstNumber(std::string_view text);

// Equal in value. An inexact decimal equals a fraction only when it was written with at least six
// decimals, all of them right.
bool SameValue(const Number& a, const Number& b);

}  // namespace assay::worker
