// What byte-level BPE needs of Unicode: character classes, UTF-8, and NFC.
//
// The classes are those of Unicode 16, which is what the regex engine of the Hugging Face library
// carries; the system's utf8proc knows an older edition, and the difference is added here. A
// difference would move a word boundary, and with it every token of the word.
//
// Thread-safe: tables are built once, at first use, and never change.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace assay::engine {

// Bits of a class. A character has at most one of the first five, which are the general categories
// L, N, M, P and S; space is the property White_Space.
inline constexpr uint8_t kLetter = 1;
inline constexpr uint8_t kNumber = 2;
inline constexpr uint8_t kMark = 4;
inline constexpr uint8_t kPunctuation = 8;
inline constexpr uint8_t kSymbol = 16;
inline constexpr uint8_t kSpace = 32;
// NFC may change this character, alone or together with the one before it.
inline constexpr uint8_t kNormalizes = 64;

class CharClasses {
 public:
  static const CharClasses& Get();

  // `c` <= 0x10FFFF.
  uint8_t operator[](char32_t c) const {
    return c < 128 ? ascii_[c] : blocks_[(size_t{block_of_[c >> 8]} << 8) | (c & 0xFF)];
  }

 private:
  CharClasses();

  std::array<uint8_t, 128> ascii_;
  std::array<uint16_t, 0x1100> block_of_;  // code point / 256 -> block; equal blocks are shared
  std::vector<uint8_t> blocks_;
};

struct DecodedChar {
  char32_t code_point;
  size_t num_bytes;
};

// The character at `p`, which starts a sequence of valid UTF-8.
inline DecodedChar DecodeChar(const char* p) {
  const auto byte = [p](int i) { return static_cast<char32_t>(static_cast<uint8_t>(p[i])); };
  const char32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  if (first < 0xE0) return {((first & 0x1F) << 6) | (byte(1) & 0x3F), 2};
  if (first < 0xF0) {
    return {((first & 0x0F) << 12) | ((byte(1) & 0x3F) << 6) | (byte(2) & 0x3F), 3};
  }
  return {((first & 0x07) << 18) | ((byte(1) & 0x3F) << 12) | ((byte(2) & 0x3F) << 6) |
              (byte(3) & 0x3F),
          4};
}

void AppendUtf8(char32_t code_point, std::string* text);

// How many bytes at the start of `bytes` are whole, valid characters.
size_t ValidUtf8Prefix(std::string_view bytes);

// Whether `bytes` is the beginning of a valid character that more bytes could complete.
bool IsIncompleteChar(std::string_view bytes);

// `bytes` with each maximal ill-formed piece replaced by one U+FFFD (Unicode 16, section 3.9,
// "substitution of maximal subparts"; what every reference implementation does).
std::string ReplaceInvalidUtf8(std::string_view bytes);

// Whether the character is a word character for added tokens with single_word: alphabetic, mark,
// decimal digit, connector or joiner.
bool IsWordChar(char32_t code_point);

// Canonical composition of valid UTF-8. NeedsNfc is a quick test: false means NFC changes nothing.
bool NeedsNfc(std::string_view text);
std::string Nfc(std::string_view text);

}  // namespace assay::engine
