#include <cmath>
#include <vector>

#include "engine/quant/uniform.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/quant/numbers.h"

namespace assay::engine {
namespace {

using ::testing::ElementsAre;

// H of order n, unscaled, column by column from the transform of unit vectors.
std::vector<std::vector<float>> Columns(int n) {
  std::vector<std::vector<float>> columns;
  for (int j = 0; j < n; ++j) {
    std::vector<float> column(static_cast<size_t>(n));
    column[static_cast<size_t>(j)] = std::sqrt(static_cast<float>(n));
    HadamardTransform(column);
    columns.push_back(std::move(column));
  }
  return columns;
}

TEST(HadamardTest, ThePublishedVectorHolds) {
  std::vector<float> values = {1, 2, 3, 4};
  HadamardTransform(values);
  EXPECT_THAT(values, ElementsAre(5, -1, -2, 0));
}

// H H^T = n I, for every base order and a few of their multiples.
TEST(HadamardTest, EveryMatrixIsOfSignsAndOrthogonal) {
  for (const int n : {1, 2, 4, 12, 20, 24, 28, 36, 40, 56, 60, 80, 108, 128, 140, 148, 216, 296}) {
    SCOPED_TRACE(n);
    ASSERT_TRUE(IsHadamardOrder(n));
    const auto columns = Columns(n);
    for (int i = 0; i < n; ++i) {
      for (int j = i; j < n; ++j) {
        int dot = 0;
        for (size_t k = 0; k < static_cast<size_t>(n); ++k) {
          const float a = columns[static_cast<size_t>(i)][k];
          const float b = columns[static_cast<size_t>(j)][k];
          ASSERT_NEAR(std::fabs(a), 1, 1e-4);
          dot += (a > 0) == (b > 0) ? 1 : -1;
        }
        ASSERT_EQ(dot, i == j ? n : 0) << i << " " << j;
      }
    }
  }
}

TEST(HadamardTest, EveryOrderOfTheStudyKeepsLengths) {
  for (const int n : {1536,  3584,  5120, 4096, 8192, 2240, 3456, 6912, 8960, 13824, 27648,
                      14336, 28672, 128,  12,   28,   40,   32,   64,   4736, 18944}) {
    SCOPED_TRACE(n);
    ASSERT_TRUE(IsHadamardOrder(n));
    std::vector<float> values = RandomValues(static_cast<size_t>(n), 1);
    double before = 0;
    double after = 0;
    for (const float x : values) before += double{x} * x;
    HadamardTransform(values);
    for (const float x : values) after += double{x} * x;
    EXPECT_NEAR(after / before, 1, 1e-5);
  }
}

TEST(HadamardTest, SizesWithoutAMatrixAreNoOrders) {
  for (const int n : {0, -4, 3, 6, 10, 44, 37 * 128, 52, 156, 172, 104, 28 * 3, 1 << 25}) {
    if (n == 37 * 128) continue;  // 148 * 32
    EXPECT_FALSE(IsHadamardOrder(n)) << n;
  }
}

// Paley I of order 12: first row 1, -1, ...; first column and diagonal 1.
TEST(HadamardTest, TheBaseOfOrderTwelveIsPaleysFirst) {
  const auto columns = Columns(12);
  const int kLegendre[] = {0, 1, -1, 1, 1, 1, -1, -1, -1, 1, -1};  // squares mod 11: 1 3 4 5 9
  for (int i = 0; i < 12; ++i) {
    for (int j = 0; j < 12; ++j) {
      const int expected = j == 0 || i == j ? 1 : i == 0 ? -1 : kLegendre[(i - j + 11) % 11];
      EXPECT_NEAR(columns[static_cast<size_t>(j)][static_cast<size_t>(i)], expected, 1e-5)
          << i << " " << j;
    }
  }
}

// H_n = H_K (x) S with K = 12, m = 1.
TEST(HadamardTest, AMultipleIsTheKroneckerProductWithSylvesters) {
  const auto base = Columns(12);
  const auto product = Columns(24);
  for (size_t i = 0; i < 24; ++i) {
    for (size_t j = 0; j < 24; ++j) {
      const float sylvester = i % 2 == 1 && j % 2 == 1 ? -1.0f : 1.0f;
      EXPECT_NEAR(product[j][i], base[j / 2][i / 2] * sylvester, 1e-5);
    }
  }
}

// Weights get the same row transform, so that no transpose is needed.
TEST(HadamardTest, AProductIsKeptWhenBothSidesAreTransformed) {
  for (const int n : {128, 140, 56}) {
    std::vector<float> x = RandomValues(static_cast<size_t>(n), 2);
    std::vector<float> w = RandomValues(static_cast<size_t>(n), 3);
    const double before = Project(x, w)[0];
    HadamardTransform(x);
    HadamardTransform(w);
    EXPECT_NEAR(Project(x, w)[0], before, 1e-3);
  }
}

}  // namespace
}  // namespace assay::engine
