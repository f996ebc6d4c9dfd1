#include "engine/tokenizer/byte_level.h"

#include <array>
#include <cstdint>

#include "engine/tokenizer/unicode.h"

namespace assay::engine {
namespace {

constexpr char32_t kFirstSubstitute = 0x100;
constexpr int kNumSubstitutes = 68;

constexpr bool StandsForItself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<char32_t, 256> char_of_byte{};
  std::array<int16_t, kFirstSubstitute + kNumSubstitutes> byte_of_char{};
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (int16_t& byte : alphabet.byte_of_char) byte = -1;
  char32_t next_substitute = kFirstSubstitute;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t c = StandsForItself(byte) ? static_cast<char32_t>(byte) : next_substitute++;
    alphabet.char_of_byte[static_cast<size_t>(byte)] = c;
    alphabet.byte_of_char[c] = static_cast<int16_t>(byte);
  }
  return alphabet;
}
constexpr Alphabet kAlphabet = MakeAlphabet();
static_assert(kAlphabet.char_of_byte[' '] == 0x120, "the space is written as U+0120");

}  // namespace

std::string BytesToAlphabet(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() + bytes.size() / 2);
  for (const char byte : bytes) {
    AppendUtf8(kAlphabet.char_of_byte[static_cast<uint8_t>(byte)], &text);
  }
  return text;
}

std::optional<std::string> AlphabetToBytes(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = DecodeChar(text.data() + i);
    if (c.code_point >= kAlphabet.byte_of_char.size()) return std::nullopt;
    const int16_t byte = kAlphabet.byte_of_char[c.code_point];
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    i += c.num_bytes;
  }
  return bytes;
}

}  // namespace assay::engine
