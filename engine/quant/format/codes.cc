#include "engine/quant/format/codes.h"

#include "base/status.h"

namespace assay::engine {

void PackCodes(std::span<const uint8_t> codes, int bit_width, std::span<uint8_t> packed) {
  ASSAY_CHECK(packed.size() == PackedBytes(codes.size(), bit_width));
  const uint32_t mask = (1U << bit_width) - 1;
  uint32_t pending = 0;  // bits that are not written yet, lowest first
  int num_pending = 0;
  size_t byte = 0;
  for (const uint8_t code : codes) {
    pending |= (code & mask) << num_pending;
    num_pending += bit_width;
    while (num_pending >= 8) {
      packed[byte++] = static_cast<uint8_t>(pending);
      pending >>= 8;
      num_pending -= 8;
    }
  }
  if (num_pending > 0) packed[byte] = static_cast<uint8_t>(pending);
}

void UnpackCodes(std::span<const uint8_t> packed, int bit_width, std::span<uint8_t> codes) {
  ASSAY_CHECK(packed.size() == PackedBytes(codes.size(), bit_width));
  const uint32_t mask = (1U << bit_width) - 1;
  uint32_t pending = 0;
  int num_pending = 0;
  size_t byte = 0;
  for (uint8_t& code : codes) {
    if (num_pending < bit_width) {
      pending |= static_cast<uint32_t>(packed[byte++]) << num_pending;
      num_pending += 8;
    }
    code = static_cast<uint8_t>(pending & mask);
    pending >>= bit_width;
    num_pending -= bit_width;
  }
}

}  // namespace assay::engine
