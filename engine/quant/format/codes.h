// Codes of 2 to 8 bits in bytes, lowest bits first: bit b of code i is bit (i * bit_width + b) of
// the row, and bit n of the row is bit n % 8 of byte n / 8. Bits after the last code are zero.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace assay::engine {

// Bytes of `num_codes` codes.
constexpr size_t PackedBytes(size_t num_codes, int bit_width) {
  return (num_codes * static_cast<size_t>(bit_width) + 7) / 8;
}

// `packed` has PackedBytes(codes.size(), bit_width). Bits of a code above its width are dropped.
void PackCodes(std::span<const uint8_t> codes, int bit_width, std::span<uint8_t> packed);
void UnpackCodes(std::span<const uint8_t> packed, int bit_width, std::span<uint8_t> codes);

}  // namespace assay::engine
