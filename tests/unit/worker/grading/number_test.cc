#include "worker/grading/number.h"

#include <gtest/gtest.h>

namespace assay::worker {
namespace {

bool Same(std::string_view a, std::string_view b) {
  const std::optional<Number> x = ParseNumber(a);
  const std::optional<Number> y = ParseNumber(b);
  return x.has_value() && y.has_value() && SameValue(*x, *y);
}

TEST(NumberTest, EqualValuesAreEqualHoweverTheyAreWritten) {
  const struct {
    const char* a;
    const char* b;
  } kCases[] = {
      {"073", "73"},
      {"110", "110.0"},
      {"110", "110."},
      {"-0", "0"},
      {"1234", "1,234"},
      {"1234567", "1,234,567"},
      {"1234", "1{,}234"},
      {"1234", "1 234"},
      {"1234", "1\\,234"},
      {"1234", "1,\\!234"},
      {"59", "\\$59"},
      {"59", "€59"},
      {"-125", "$-125"},
      {"-125", "-$125"},
      {"-3", "\u22123"},
      {"5", "+5"},
      {"285", "285 \\quad \\text{(miles)}"},
      {"12", "12\\text{ cm}^2"},
      {"30", "30^\\circ"},
      {"20002", "20002 \\text{ dollars}"},
      {"5", "x = 5"},
      {"315", "310 + 5 = 315"},
      {"0.5", "\\frac{1}{2}"},
      {"0.5", "\\dfrac12"},
      {"1/2", "2/4"},
      {"-0.5", "-\\frac{1}{2}"},
      {"-0.5", "\\frac{-1}{2}"},
      {"1.5", "1 \\frac{1}{2}"},
      {"1.5", "1 1/2"},
      {"1.5", "1,5"},
      {"0.25", "25\\%"},
      {"0.185", ".185"},
      {"1/3", "0.333333"},
      {"123456789012345678901234567890", "123,456,789,012,345,678,901,234,567,890"},
  };
  for (const auto& c : kCases) {
    EXPECT_TRUE(Same(c.a, c.b)) << c.a << " and " << c.b;
    EXPECT_TRUE(Same(c.b, c.a)) << c.b << " and " << c.a;
  }
}

TEST(NumberTest, NearValuesAreNotEqual) {
  const struct {
    const char* a;
    const char* b;
  } kCases[] = {
      {"8000", "8{,}001"}, {"1250", "1"},      {"5", "-5"},
      {"1/3", "0.3333"},   {"0.5", "0.50001"}, {"123456789012345678901", "123456789012345678902"},
  };
  for (const auto& c : kCases) EXPECT_FALSE(Same(c.a, c.b)) << c.a << " and " << c.b;
}

TEST(NumberTest, WhatIsNotOneNumberIsRefused) {
  for (const char* text :
       {"",          "ANSWER", "x",      "5x",      "3 + 4",  "1/0",    "\\frac{1}{0}", "2\\pi",
        "\\sqrt{2}", "10^3",   "25_8",   "3i",      "(1, 2)", "5 or 6", "\\frac{a}{b}", "-",
        "$",         "{",      "\\frac", "\\frac{1"}) {
    EXPECT_FALSE(ParseNumber(text).has_value()) << text;
  }
  EXPECT_FALSE(ParseNumber(std::string(100'000, '9')).has_value());
}

TEST(NumberTest, TheFirstNumberOfASentenceIsFound) {
  const std::optional<Number> found = FirstNumber("about -12 dollars, not 13");
  ASSERT_TRUE(found.has_value());
  EXPECT_TRUE(SameValue(*found, *ParseNumber("-12")));
  EXPECT_FALSE(FirstNumber("undefined").has_value());
}

}  // namespace
}  // namespace assay::worker
