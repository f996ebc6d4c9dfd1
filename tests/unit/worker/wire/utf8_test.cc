#include "worker/wire/utf8.h"

#include <gtest/gtest.h>

namespace assay::worker {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";

TEST(Utf8Test, WellFormedTextIsKept) {
  const std::string text = "a\u00e9\u20ac\U0001F600 </think>\n";
  EXPECT_EQ(ValidUtf8(text), text);
}

TEST(Utf8Test, EveryByteOutsideASequenceIsReplaced) {
  const struct {
    std::string bytes;
    int num_replaced;
  } kCases[] = {
      {"\x80", 1},              // a continuation alone
      {"\xC0\xAF", 2},          // overlong
      {"\xE0\x80\x80", 3},      // overlong
      {"\xED\xA0\x80", 3},      // a surrogate
      {"\xF4\x90\x80\x80", 4},  // beyond U+10FFFF
      {"\xF0\x9F\x98", 3},      // cut short
      {"\xFF", 1},
  };
  for (const auto& c : kCases) {
    std::string expected = "x";
    for (int i = 0; i < c.num_replaced; ++i) expected += kReplacement;
    EXPECT_EQ(ValidUtf8("x" + c.bytes), expected);
    EXPECT_EQ(ValidUtf8("x" + c.bytes + "y"), expected + "y");
  }
}

}  // namespace
}  // namespace assay::worker
