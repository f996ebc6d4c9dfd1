// Bounds of numbers on a command line, in words: CLI11's own say the largest double with all its
// 309 digits. Its Range says both ends and stays.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace assay {

namespace internal {

template <typename IsFine>
CLI::Validator NumberCheck(const std::string& bound, IsFine is_fine) {
  return CLI::Validator(
      [bound, is_fine](std::string& text) -> std::string {
        double value = 0;
        if (!CLI::detail::lexical_cast(text, value)) return "'" + text + "' is not a number";
        return is_fine(value) ? "" : text + " is not " + bound;
      },
      bound, bound);
}

}  // namespace internal

inline CLI::Validator Positive() {
  return internal::NumberCheck("> 0", [](double value) { return value > 0; });
}

inline CLI::Validator NotNegative() {
  return internal::NumberCheck(">= 0", [](double value) { return value >= 0; });
}

}  // namespace assay
