#include "engine/quant/format/codes.h"

#include <vector>

#include "tests/testing/status_matchers.h"

namespace assay::engine {
namespace {

using ::testing::ElementsAre;

TEST(CodesTest, TheLowestBitsComeFirst) {
  std::vector<uint8_t> packed(2);
  PackCodes(std::vector<uint8_t>{0x1, 0xa, 0x3}, 4, packed);
  EXPECT_THAT(packed, ElementsAre(0xa1, 0x03));
}

// 5 = 101, 3 = 011, 6 = 110: 10|011|101 then 1: the third code straddles.
TEST(CodesTest, AThreeBitCodeMayStraddleBytes) {
  std::vector<uint8_t> packed(2);
  PackCodes(std::vector<uint8_t>{5, 3, 6}, 3, packed);
  EXPECT_THAT(packed, ElementsAre(0b10011101, 0b1));
}

TEST(CodesTest, EveryWidthAndLengthComesBack) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (size_t size = 0; size < 40; ++size) {
      std::vector<uint8_t> codes(size);
      for (size_t i = 0; i < size; ++i) {
        codes[i] = static_cast<uint8_t>((i * 37 + 11) & ((1U << bits) - 1));
      }
      std::vector<uint8_t> packed(PackedBytes(size, bits));
      PackCodes(codes, bits, packed);
      std::vector<uint8_t> unpacked(size);
      UnpackCodes(packed, bits, unpacked);
      EXPECT_EQ(unpacked, codes) << bits << " " << size;
    }
  }
}

TEST(CodesTest, NegativeCodesKeepTheirLowBits) {
  std::vector<uint8_t> packed(1);
  PackCodes(std::vector<uint8_t>{static_cast<uint8_t>(-8), static_cast<uint8_t>(-1)}, 4, packed);
  EXPECT_THAT(packed, ElementsAre(0xf8));
}

}  // namespace
}  // namespace assay::engine
