#include "engine/kernels/philox.h"

#include <gtest/gtest.h>

#include <set>

namespace assay::engine {
namespace {

// The known answers that Random123 publishes for philox4x32-10 (kat_vectors).
TEST(PhiloxTest, GivesThePublishedAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, DrawsAreUniformAndDifferBySeedAndPosition) {
  std::set<double> seen;
  double sum = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    for (uint64_t position = 0; position < 100; ++position) {
      const double draw =
          static_cast<double>(UniformWord(seed << 32 | seed, position) >> 11) * 0x1p-53;
      EXPECT_TRUE(draw >= 0 && draw < 1);
      seen.insert(draw);
      sum += draw;
    }
  }
  EXPECT_EQ(seen.size(), 10000u);
  EXPECT_NEAR(sum / 10000, 0.5, 0.01);  // three standard deviations: 0.0087
}

}  // namespace
}  // namespace assay::engine
