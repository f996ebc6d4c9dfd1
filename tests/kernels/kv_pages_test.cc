#include "engine/kernels/cuda/kv_pages.h"

#include <gtest/gtest.h>

#include <bit>
#include <set>
#include <utility>

#include "tests/testing/status_matchers.h"

namespace assay::engine::cuda {
namespace {

constexpr KvCodes kAllCodes[] = {KvCodes::kBf16, KvCodes::k8Bit, KvCodes::k4Bit, KvCodes::k3Bit};

CacheSpec Uniform(int bits, CacheSpec::Position position) {
  return {.code_type = CodeType::kUniform, .bit_width = bits, .position = position};
}

TEST(KvPagesTest, EveryBitOfEveryCodeHasAPlaceOfItsOwnInThePage) {
  for (const int head_dim : {16, 64, 96, 128}) {
    for (const KvCodes codes : kAllCodes) {
      const KvPartLayout part = {codes, KvParams::kPerToken};
      std::set<std::pair<int, int>> bits;
      const auto take = [&](CodePlace place, int count) {
        for (int bit = 0; bit < count; ++bit) {
          const auto key = std::pair(place.byte + (place.shift + bit) / 8, (place.shift + bit) % 8);
          EXPECT_LT(key.first, part.code_bytes(head_dim));
          EXPECT_TRUE(bits.insert(key).second) << head_dim << ' ' << BitsOf(codes);
        }
      };
      for (int token = 0; token < kKvPageTokens; ++token) {
        for (int dim = 0; dim < head_dim; ++dim) {
          const bool planes = codes == KvCodes::k3Bit;
          take(PlaceOfCode(codes, token, dim, head_dim), planes ? 2 : BitsOf(codes));
          if (planes) take(PlaceOfThirdBit(token, dim, head_dim), 1);
        }
      }
    }
  }
}

// A token's row is written while others are read and written: they share no byte.
TEST(KvPagesTest, TokensShareNoByte) {
  for (const int head_dim : {16, 128}) {
    for (const KvCodes codes : kAllCodes) {
      std::set<int> before;
      for (int token = 0; token < kKvPageTokens; ++token) {
        std::set<int> bytes;
        for (int dim = 0; dim < head_dim; ++dim) {
          bytes.insert(PlaceOfCode(codes, token, dim, head_dim).byte);
          if (codes == KvCodes::k3Bit) bytes.insert(PlaceOfThirdBit(token, dim, head_dim).byte);
        }
        for (const int byte : bytes) EXPECT_TRUE(before.insert(byte).second);
      }
    }
  }
}

TEST(KvPagesTest, PagesOfTheStudysModelsHaveTheBytesOfTheSpecification) {
  // Bytes per token and layer of the 7B model (4 KV heads, 28 layers).
  const auto bytes_per_token = [](int bits) {
    const CacheSpec key = Uniform(bits, CacheSpec::Position::kAfterRope);
    const CacheSpec value = Uniform(bits, CacheSpec::Position::kAfterProjection);
    const KvPageLayout layout = bits == 16 ? MakeKvPageLayout({}, {}, 128).value()
                                           : MakeKvPageLayout(key, value, 128).value();
    return layout.page_bytes() * 4 * 28 / kKvPageTokens;
  };
  EXPECT_EQ(bytes_per_token(16), 57344);
  EXPECT_EQ(bytes_per_token(8), 29568);
  EXPECT_EQ(bytes_per_token(4), 15232);
  EXPECT_EQ(bytes_per_token(3), 11648);
}

TEST(KvPagesTest, WhatHasNoCodesIsKeptAsBf16) {
  const CacheSpec value = Uniform(4, CacheSpec::Position::kAfterProjection);
  CacheSpec mxfp4 = {.code_type = CodeType::kMxfp4, .bit_width = 4};
  CacheSpec grouped = Uniform(4, CacheSpec::Position::kAfterRope);
  grouped.group_size = 32;
  const CacheSpec early = Uniform(4, CacheSpec::Position::kBeforeRope);
  for (const CacheSpec& key : {mxfp4, grouped, early}) {
    ASSERT_OK_AND_ASSIGN(const KvPageLayout layout, MakeKvPageLayout(key, value, 128));
    EXPECT_EQ(layout.key, KvPartLayout());
    EXPECT_EQ(layout.value, (KvPartLayout{KvCodes::k4Bit, KvParams::kPerToken}));
  }
}

TEST(KvPagesTest, StaticKeysBeforeRopeHaveCodesWithoutParameters) {
  CacheSpec key = Uniform(3, CacheSpec::Position::kBeforeBias);
  key.granularity = CacheSpec::Granularity::kPerChannelStatic;
  ASSERT_OK_AND_ASSIGN(
      const KvPageLayout layout,
      MakeKvPageLayout(key, Uniform(3, CacheSpec::Position::kAfterProjection), 128));
  EXPECT_EQ(layout.key, (KvPartLayout{KvCodes::k3Bit, KvParams::kPerChannel}));
  EXPECT_EQ(layout.key.bytes(128), 64 * 48);
}

TEST(KvPagesTest, AHeadDimThatPagesCannotHoldIsRefusedByItsNumber) {
  EXPECT_THAT(MakeKvPageLayout({}, {}, 20),
              ::assay::testing::IsError(absl::StatusCode::kInvalidArgument, "20"));
  EXPECT_THAT(MakeKvPageLayout({}, {}, 512),
              ::assay::testing::IsError(absl::StatusCode::kInvalidArgument, "512"));
}

TEST(KvPagesTest, AStoredScaleIsWithinATwoHundredThousandthAndNeverInfinite) {
  for (const float scale : {1e-37f, 3.7e-5f, 0.1234567f, 1.0f, 99999.9f, 3.4e38f}) {
    const uint32_t grid = PackGrid(std::bit_cast<uint32_t>(scale), 7);
    EXPECT_EQ(grid & 0xFF, 7u);
    EXPECT_NEAR(std::bit_cast<float>(grid & 0xFFFFFF00u) / scale, 1.0f, 0x1p-16f);
  }
}

}  // namespace
}  // namespace assay::engine::cuda
