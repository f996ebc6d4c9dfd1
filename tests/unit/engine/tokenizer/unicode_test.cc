#include "engine/tokenizer/unicode.h"

#include <gtest/gtest.h>

#include "engine/tokenizer/byte_level.h"

namespace assay::engine {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";

TEST(CharClassesTest, ClassesAreTheGeneralCategories) {
  const CharClasses& classes = CharClasses::Get();
  EXPECT_EQ(classes[U'a'], kLetter);
  EXPECT_EQ(classes[U'7'], kNumber);
  EXPECT_EQ(classes[U'²'], kNumber);
  EXPECT_EQ(classes[U'!'], kPunctuation);
  EXPECT_EQ(classes[U'+'], kSymbol);
  EXPECT_EQ(classes[U'\n'], kSpace);
  EXPECT_EQ(classes[0x301] & kMark, kMark);
  EXPECT_EQ(classes[0x3000], kSpace);
  EXPECT_EQ(classes[0x200B], 0) << "the zero-width space is no space";
  EXPECT_EQ(classes[0x10FFFF], 0);
}

// The system's library is older than the tables of the reference.
TEST(CharClassesTest, CharactersOfUnicode16AreKnown) {
  const CharClasses& classes = CharClasses::Get();
  EXPECT_EQ(classes[0x1FADC] & ~kNormalizes, kSymbol);
  EXPECT_EQ(classes[0x10D4A] & ~kNormalizes, kLetter);
  EXPECT_EQ(classes[0x1CCF0] & ~kNormalizes, kNumber);
}

TEST(Utf8Test, EachMaximalIllFormedPieceIsOneReplacement) {
  const std::string r = kReplacement;
  EXPECT_EQ(ReplaceInvalidUtf8("a\xFFz"), "a" + r + "z");
  EXPECT_EQ(ReplaceInvalidUtf8("\xE2\x82"), r);  // an unfinished character
  EXPECT_EQ(ReplaceInvalidUtf8("\xE2\x82z"), r + "z");
  EXPECT_EQ(ReplaceInvalidUtf8("\xED\xA0\x80"), r + r + r);          // a surrogate
  EXPECT_EQ(ReplaceInvalidUtf8("\xC0\xAF"), r + r);                  // not the shortest form
  EXPECT_EQ(ReplaceInvalidUtf8("\xF4\x90\x80\x80"), r + r + r + r);  // beyond U+10FFFF
  EXPECT_EQ(ReplaceInvalidUtf8("\xF0\x9F\x98"), r);
  EXPECT_EQ(ReplaceInvalidUtf8("日本"), "日本");
}

TEST(Utf8Test, OnlyWhatMoreBytesCanCompleteIsIncomplete) {
  EXPECT_TRUE(IsIncompleteChar("\xF0\x9F\x98"));
  EXPECT_TRUE(IsIncompleteChar("\xC3"));
  EXPECT_FALSE(IsIncompleteChar("\xC3\xA9"));
  EXPECT_FALSE(IsIncompleteChar("\x80"));
  EXPECT_FALSE(IsIncompleteChar("\xE0\x80"));
  EXPECT_FALSE(IsIncompleteChar(""));
}

TEST(NfcTest, ComposesWhatIsDecomposedAndLeavesTheRest) {
  EXPECT_EQ(Nfc("e\u0301"), "\u00E9");
  EXPECT_EQ(Nfc("a\u0307\u0323"), "\u1EA1\u0307");  // marks are put in order
  EXPECT_EQ(Nfc("\u1100\u1161\u11A8"), "\uAC01");   // Hangul
  EXPECT_EQ(Nfc("\u212B\u1FDB"), "\u00C5\u038A");   // singletons
  EXPECT_EQ(Nfc("\u0958"), "\u0915\u093C");         // excluded from composition
  EXPECT_EQ(Nfc("x\u0301y e\u0301 z"), "x\u0301y \u00E9 z");
  EXPECT_EQ(Nfc("\u0344"), "\u0308\u0301");
  EXPECT_FALSE(NeedsNfc("caf\u00E9 日本語 😀"));
  EXPECT_TRUE(NeedsNfc("cafe\u0301"));
}

// The reference normalizes by Unicode 10, where U+10F4E was not assigned: it stays where it is.
TEST(NfcTest, MarksYoungerThanTheReferencesTablesAreNotReordered) {
  EXPECT_EQ(Nfc("a\u0323\u0307\U00010F4E"), "\u1EA1\u0307\U00010F4E");
}

// The library's own ordering of marks would take hours.
TEST(NfcTest, HalfAMillionMarksAreSortedInTime) {
  std::string text = "a";
  for (int i = 0; i < 500'000; ++i) text += i % 2 == 0 ? "\u0301" : "\u0323";
  const std::string composed = Nfc(text);
  EXPECT_EQ(composed.substr(0, 5), "\u1EA1\u0323");  // a with U+0323, then the other ones of it
  EXPECT_EQ(composed.substr(composed.size() - 2), "\u0301");
}

TEST(ByteLevelTest, EveryByteHasItsCharacter) {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
  const std::string text = BytesToAlphabet(bytes);
  EXPECT_EQ(ValidUtf8Prefix(text), text.size());
  EXPECT_EQ(AlphabetToBytes(text), bytes);
  EXPECT_EQ(BytesToAlphabet(" \n"), "ĠĊ");
  EXPECT_EQ(AlphabetToBytes("a b"), std::nullopt) << "the blank is written otherwise";
}

}  // namespace
}  // namespace assay::engine
