#include "engine/decoder/rope_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace assay::engine {
namespace {

ModelConfig Llama31() {
  ModelConfig config;
  config.head_dim = 128;
  config.rope_theta = 500000;
  config.rope_scaling = RopeScaling{.factor = 8,
                                    .low_freq_factor = 1,
                                    .high_freq_factor = 4,
                                    .original_max_position_embeddings = 8192};
  return config;
}

TEST(RopeTableTest, PositionsTurnByTheInverseFrequencies) {
  ModelConfig config;
  config.head_dim = 4;
  config.rope_theta = 10000;
  RopeTable table(config);
  table.EnsurePositions(3);
  EXPECT_FLOAT_EQ(table.cosines(2)[0], std::cos(2.0f));
  EXPECT_FLOAT_EQ(table.sines(2)[1], std::sin(0.02f));
  EXPECT_FLOAT_EQ(table.cosines(0)[1], 1);
}

TEST(RopeTableTest, GrowingKeepsWhatWasThere) {
  RopeTable table(Llama31());
  table.EnsurePositions(10);
  const float before = table.sines(9)[3];
  table.EnsurePositions(5000);
  EXPECT_EQ(table.sines(9)[3], before);
  EXPECT_NEAR(table.sines(4999)[0], std::sin(4999.0), 1e-6);
}

// Short waves stay, long ones are stretched by 8, between them a blend.
TEST(RopeTableTest, Llama3ScalingStretchesLongWaves) {
  const RopeTable table(Llama31());
  const std::vector<float>& f = table.inverse_frequencies();
  const auto plain = [](int i) { return std::pow(500000.0, -2.0 * i / 128); };
  EXPECT_FLOAT_EQ(f[0], 1);
  EXPECT_FLOAT_EQ(f[28], static_cast<float>(plain(28)));             // wavelength 1956 < 2048
  EXPECT_FLOAT_EQ(f[36], static_cast<float>(plain(36) / 8));         // 10093 > 8192
  const double wavelength = 2 * 3.14159265358979323846 / plain(32);  // 4443
  const double t = (8192 / wavelength - 1) / 3;
  EXPECT_FLOAT_EQ(f[32], static_cast<float>((1 - t) * plain(32) / 8 + t * plain(32)));
}

}  // namespace
}  // namespace assay::engine
