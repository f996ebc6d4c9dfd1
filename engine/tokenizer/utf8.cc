// UTF-8 well-formedness, after table 3-7 of the Unicode standard.
#include <algorithm>

#include "engine/tokenizer/unicode.h"

namespace assay::engine {
namespace {

struct Form {
  size_t num_bytes;    // 0: no character starts with this byte
  uint8_t second_low;  // bounds of the second byte; later ones are 0x80..0xBF
  uint8_t second_high;
};

Form FormOf(uint8_t first) {
  if (first < 0x80) return {1, 0, 0};
  if (first < 0xC2) return {0, 0, 0};
  if (first < 0xE0) return {2, 0x80, 0xBF};
  if (first == 0xE0) return {3, 0xA0, 0xBF};
  if (first == 0xED) return {3, 0x80, 0x9F};  // no surrogates
  if (first < 0xF0) return {3, 0x80, 0xBF};
  if (first == 0xF0) return {4, 0x90, 0xBF};
  if (first < 0xF4) return {4, 0x80, 0xBF};
  if (first == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

// How many bytes at the start of `bytes` (not empty) agree with some valid character; `complete`
// says whether they are one.
size_t MatchChar(std::string_view bytes, bool* complete) {
  const Form form = FormOf(static_cast<uint8_t>(bytes[0]));
  *complete = false;
  if (form.num_bytes == 0) return 0;
  size_t i = 1;
  for (; i < std::min(form.num_bytes, bytes.size()); ++i) {
    const auto byte = static_cast<uint8_t>(bytes[i]);
    const bool fits =
        i == 1 ? byte >= form.second_low && byte <= form.second_high : byte >= 0x80 && byte <= 0xBF;
    if (!fits) return i;
  }
  *complete = i == form.num_bytes;
  return i;
}

}  // namespace

size_t ValidUtf8Prefix(std::string_view bytes) {
  size_t i = 0;
  while (i < bytes.size()) {
    if (static_cast<uint8_t>(bytes[i]) < 0x80) {
      ++i;
      continue;
    }
    bool complete;
    const size_t num_bytes = MatchChar(bytes.substr(i), &complete);
    if (!complete) break;
    i += num_bytes;
  }
  return i;
}

bool IsIncompleteChar(std::string_view bytes) {
  if (bytes.empty()) return false;
  bool complete;
  return MatchChar(bytes, &complete) == bytes.size() && !complete;
}

std::string ReplaceInvalidUtf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (true) {
    const size_t valid = ValidUtf8Prefix(bytes);
    text.append(bytes.substr(0, valid));
    bytes.remove_prefix(valid);
    if (bytes.empty()) return text;
    bool complete;
    const size_t ill_formed = std::max<size_t>(1, MatchChar(bytes, &complete));
    text.append("\xEF\xBF\xBD");
    bytes.remove_prefix(ill_formed);
  }
}

}  // namespace assay::engine
