// The alphabet of byte-level BPE (GPT-2): each byte has a printable character, so that a vocabulary
// of arbitrary bytes can be written as JSON text. Printable Latin-1 bytes stand for themselves; the
// other 68 are U+0100 and up, in order.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace assay::engine {

// `bytes` in the alphabet, as UTF-8.
std::string BytesToAlphabet(std::string_view bytes);

// The bytes that `text` (valid UTF-8) stands for; nothing when a character is not of the alphabet.
std::optional<std::string> AlphabetToBytes(std::string_view text);

}  // namespace assay::engine
