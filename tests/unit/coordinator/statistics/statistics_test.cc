// Expected values: scipy 1.17.1 and numpy, by the expressions quoted above each table.
#include "coordinator/statistics/statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "coordinator/statistics/distributions.h"
#include "coordinator/statistics/random.h"

namespace assay::statistics {
namespace {

// n items of which some flipped to wrong (+1) and some to right (-1).
std::vector<double> Drops(int n, int harmful, int beneficial) {
  std::vector<double> drops(static_cast<size_t>(n), 0.0);
  for (int i = 0; i < harmful; ++i) drops[static_cast<size_t>(i)] = 1;
  for (int i = harmful; i < harmful + beneficial; ++i) drops[static_cast<size_t>(i)] = -1;
  return drops;
}

// stats.binomtest(k, n).proportion_ci(0.95, 'wilson')
TEST(WilsonTest, AgreesWithScipy) {
  struct Case {
    int64_t correct, samples;
    double low, high;
  };
  const Case cases[] = {
      {0, 10, 0, 0.277532799862889},
      {10, 10, 0.722467200137111, 1},
      {1, 1, 0.206549314377237, 1},
      {69, 120, 0.48557751722993, 0.659769607807264},
      {250, 500, 0.456341265302484, 0.543658734697516},
      {492, 500, 0.968748891466606, 0.991870746966612},
      {1234, 1319, 0.921000365948404, 0.947584446191009},
  };
  for (const Case& c : cases) {
    const Interval interval = Wilson(c.correct, c.samples);
    EXPECT_NEAR(interval.low, c.low, 1e-12) << c.correct << "/" << c.samples;
    EXPECT_NEAR(interval.high, c.high, 1e-12) << c.correct << "/" << c.samples;
  }
}

TEST(WilsonTest, KnowsNothingWithoutSamples) {
  EXPECT_EQ(Wilson(0, 0).low, 0);
  EXPECT_EQ(Wilson(0, 0).high, 1);
}

// stats.norm.ppf(p), stats.t.cdf(t, df)
TEST(DistributionsTest, AgreeWithScipy) {
  EXPECT_NEAR(NormalQuantile(0.975), 1.95996398454005, 1e-13);
  EXPECT_NEAR(NormalQuantile(0.95), 1.64485362695147, 1e-13);
  EXPECT_NEAR(NormalQuantile(0.5), 0, 1e-13);
  EXPECT_NEAR(NormalQuantile(0.001), -3.09023230616781, 1e-13);
  struct Case {
    double t, df, p;
  };
  const Case cases[] = {
      {0.0, 5, 0.5},
      {1.5, 3, 0.884708067377589},
      {-2.2, 10, 0.0262205342246766},
      {-4.0, 119, 5.52071266798715e-05},
      {3.1, 501, 0.998977953502747},
      {-9.0, 1318, 3.84343724440946e-19},
      {-30, 500, 3.60714444421407e-114},
  };
  for (const Case& c : cases) {
    EXPECT_NEAR(StudentCdf(c.t, c.df) / c.p, 1, 1e-9) << c.t << " " << c.df;
  }
}

// stats.binomtest(min(b, c), b + c, 0.5).pvalue
TEST(McNemarTest, AgreesWithScipy) {
  struct Case {
    int64_t harmful, beneficial;
    double p;
  };
  const Case cases[] = {
      {0, 0, 1},
      {1, 0, 1},
      {5, 0, 0.0625},
      {12, 3, 0.03515625},
      {3, 12, 0.03515625},
      {40, 40, 1},
      {0, 60, 1.73472347597681e-18},
      {130, 90, 0.00840545175268194},
  };
  for (const Case& c : cases) {
    EXPECT_NEAR(McNemarP(c.harmful, c.beneficial) / c.p, 1, 1e-9) << c.harmful << c.beneficial;
  }
}

// d = np.append(drops, [1, -1]);
// max(stats.ttest_1samp(d, -m, alternative='greater').pvalue,
//     stats.ttest_1samp(d, m, alternative='less').pvalue)
TEST(TostTest, AgreesWithScipyOnDropsWithPseudoItems) {
  struct Case {
    int n, harmful, beneficial;
    double p_1pp, p_3pp;
  };
  const Case cases[] = {
      {500, 0, 0, 0.000213805183517, 2.85965293752e-24},
      {500, 4, 2, 0.143198017007, 2.49888061079e-06},
      {1319, 10, 8, 0.00616725942074, 5.177512408e-17},
      {250, 3, 3, 0.187377517287, 0.00406884731497},
      {120, 12, 2, 0.986682165759, 0.946140899964},
      {100, 60, 0, 1, 1},
  };
  for (const Case& c : cases) {
    const PairedDrop paired = ComparePaired(Drops(c.n, c.harmful, c.beneficial), 1);
    EXPECT_NEAR(paired.tost_p_1pp / c.p_1pp, 1, 1e-8) << c.n << " " << c.harmful;
    EXPECT_NEAR(paired.tost_p_3pp / c.p_3pp, 1, 1e-8) << c.n << " " << c.harmful;
  }
}

// stats.permutation_test((d,), np.mean, permutation_type='samples', n_resamples=np.inf).pvalue
TEST(SignFlipTest, AgreesWithScipysFullEnumeration) {
  EXPECT_NEAR(SignFlipP(std::vector<double>{1, 1, 1, -1, 0, 0, 1}, 1), 0.375, 1e-12);
  EXPECT_NEAR(SignFlipP(std::vector<double>{0.25, 0.5, -0.25, 0.75, 0, 0, 1, -0.5}, 4), 0.34375,
              1e-12);
  EXPECT_NEAR(SignFlipP(std::vector<double>{-1, -1, -1, -1, -1, -1, 0, 0, 0, 0}, 1), 0.03125,
              1e-12);
  EXPECT_NEAR(
      SignFlipP(
          std::vector<double>{0.375, -0.25, 0.625, 0.125, 0.0, 0.5, -0.125, 0.25, 0.75, -0.375}, 8),
      0.18359375, 1e-12);
}

TEST(SignFlipTest, IsMcNemarsTestWithOneRepeat) {
  for (const auto& [harmful, beneficial] : {std::pair(12, 3), std::pair(130, 90)}) {
    EXPECT_NEAR(SignFlipP(Drops(500, harmful, beneficial), 1), McNemarP(harmful, beneficial), 1e-9);
  }
}

TEST(SignFlipTest, FallsBackToRandomFlipsForUnevenRepeats) {
  // Thirds are not multiples of a quarter: an item that lost a pair.
  const std::vector<double> drops = {1.0 / 3, 1.0 / 3, -1.0 / 3, 1.0 / 3, 1.0 / 3, 1.0 / 3};
  const double exact = SignFlipP(drops, 3);
  EXPECT_NEAR(SignFlipP(drops, 4), exact, 0.02);
  EXPECT_EQ(SignFlipP(drops, 4), SignFlipP(drops, 4));
}

TEST(SignFlipTest, IsOneWhenNothingFlipped) {
  EXPECT_EQ(SignFlipP(Drops(100, 0, 0), 1), 1);
  EXPECT_EQ(SignFlipP({}, 1), 1);
}

// x = np.array([1,1,1,.75,.5,.25,0,0,1,.75,.5,1,1,1,.25,0,.5,.75,1,0] * 6)
// stats.bootstrap((x,), np.mean, n_resamples=200000, method='percentile')
//   -> 0.541667, 0.681250
TEST(BootstrapTest, AgreesWithScipyOnItemsWithRepeats) {
  const double pattern[] = {1,  1, 1, .75, .5,  .25, 0,  0,   1, .75,
                            .5, 1, 1, 1,   .25, 0,   .5, .75, 1, 0};
  std::vector<double> items;
  for (int i = 0; i < 6; ++i) items.insert(items.end(), std::begin(pattern), std::end(pattern));
  for (const int denominator : {1, 4}) {  // by values, and by whole numbers
    const Interval interval = BootstrapMean(items, denominator);
    EXPECT_NEAR(interval.low, 0.541667, 0.005) << denominator;
    EXPECT_NEAR(interval.high, 0.681250, 0.005) << denominator;
  }
}

TEST(BootstrapTest, DoesNotDependOnTheOrderOfTheItems) {
  Random random(5);
  for (const int denominator : {1, 40}) {
    std::vector<double> items;
    for (int i = 0; i < 500; ++i) items.push_back(random.Below(41) / 40.0);
    const Interval interval = BootstrapMean(items, denominator);
    std::reverse(items.begin(), items.end());
    std::swap(items[3], items[333]);
    const Interval again = BootstrapMean(items, denominator);
    EXPECT_EQ(interval.low, again.low);
    EXPECT_EQ(interval.high, again.high);
  }
}

// A unit that could not be graded leaves an item's mean with another denominator.
TEST(BootstrapTest, AWrongHintIsNotBelieved) {
  std::vector<double> items(100, 0.5);
  items[7] = 1.0 / 3;
  EXPECT_EQ(BootstrapMean(items, 2).low, BootstrapMean(items).low);
  EXPECT_EQ(BootstrapMean(items, 2).high, BootstrapMean(items).high);
}

// The resample sum of values -1, 0, 1 has an exact distribution: the n+2-fold convolution of the
// item distribution (np.fft), of which these are the 2.5 % and 97.5 % quantiles.
TEST(PairedDropTest, IntervalIsTheQuantilesOfTheExactResampleDistribution) {
  struct Case {
    int n, harmful, beneficial;
    double low, high;
  };
  const Case cases[] = {
      {500, 0, 0, -3.0 / 502, 3.0 / 502},   {300, 0, 0, -3.0 / 302, 3.0 / 302},
      {100, 0, 0, -3.0 / 102, 3.0 / 102},   {500, 1, 0, -2.0 / 502, 5.0 / 502},
      {500, 30, 10, 8.0 / 502, 33.0 / 502}, {1319, 25, 5, 9.0 / 1321, 31.0 / 1321},
  };
  for (const Case& c : cases) {
    const Interval interval = ComparePaired(Drops(c.n, c.harmful, c.beneficial), 1).interval;
    // Where a quantile falls on a step of the distribution, 10,000 resamples may take either side.
    const double step = 1.01 / (c.n + 2);
    EXPECT_NEAR(interval.low, c.low, step) << c.n << " " << c.harmful;
    EXPECT_NEAR(interval.high, c.high, step) << c.n << " " << c.harmful;
  }
}

TEST(PairedDropTest, PointEstimateIsTheObservedDrop) {
  EXPECT_DOUBLE_EQ(ComparePaired(Drops(10, 4, 1), 1).drop, 0.3);
}

TEST(PairedDropTest, IntervalDependsOnNothingButTheData) {
  const std::vector<double> drops = Drops(250, 7, 3);
  std::vector<double> reversed(drops.rbegin(), drops.rend());
  const Interval a = ComparePaired(drops, 1).interval;
  const Interval b = ComparePaired(reversed, 1).interval;
  EXPECT_EQ(a.low, b.low);
  EXPECT_EQ(a.high, b.high);
}

// Two arms at 100 % on a handful of items prove nothing.
TEST(PairedDropTest, NoFlipsInFewItemsIsNotLossless) {
  for (const int n : {1, 2, 10, 100, 250}) {
    EXPECT_EQ(DecideLabel(ComparePaired(Drops(n, 0, 0), 1).interval), Label::kUndecided) << n;
  }
  EXPECT_EQ(DecideLabel(ComparePaired(Drops(500, 0, 0), 1).interval), Label::kLossless);
}

TEST(PairedDropTest, RepeatsWithoutFlipsNarrowTheInterval) {
  const Interval interval = ComparePaired(Drops(120, 0, 0), 8).interval;
  EXPECT_NEAR(interval.high, 3.0 / 122 / 8, 0.001);
  EXPECT_EQ(DecideLabel(interval), Label::kLossless);
}

TEST(PairedDropTest, CollapseIsRiskyEvenOnFewItems) {
  EXPECT_EQ(DecideLabel(ComparePaired(Drops(20, 20, 0), 1).interval), Label::kRisky);
  EXPECT_EQ(DecideLabel(ComparePaired(Drops(500, 490, 0), 1).interval), Label::kRisky);
}

TEST(PairedDropTest, WithoutPairsAnythingIsPossible) {
  const PairedDrop paired = ComparePaired({}, 1);
  EXPECT_EQ(paired.interval.low, -1);
  EXPECT_EQ(paired.interval.high, 1);
  EXPECT_EQ(DecideLabel(paired.interval), Label::kUndecided);
}

TEST(LabelTest, NeedsTheWholeIntervalInOneClass) {
  EXPECT_EQ(DecideLabel({-0.02, 0.0099}), Label::kLossless);
  EXPECT_EQ(DecideLabel({-0.50, -0.01}), Label::kLossless);  // better is lossless
  EXPECT_EQ(DecideLabel({-0.02, 0.01}), Label::kUndecided);
  EXPECT_EQ(DecideLabel({0.01, 0.03}), Label::kFair);
  EXPECT_EQ(DecideLabel({0.009, 0.02}), Label::kUndecided);
  EXPECT_EQ(DecideLabel({0.02, 0.031}), Label::kUndecided);
  EXPECT_EQ(DecideLabel({0.03, 0.2}), Label::kUndecided);
  EXPECT_EQ(DecideLabel({0.0301, 0.2}), Label::kRisky);
  // 0.01 as a sum of fractions.
  EXPECT_EQ(DecideLabel({0.1 + 0.2 - 0.29, 0.03}), Label::kFair);
}

TEST(LabelTest, HasANameForEachClass) {
  EXPECT_EQ(LabelName(Label::kLossless), "lossless");
  EXPECT_EQ(LabelName(Label::kFair), "fair");
  EXPECT_EQ(LabelName(Label::kRisky), "risky");
  EXPECT_EQ(LabelName(Label::kUndecided), "undecided");
}

TEST(AccuracyIntervalTest, IsWilsonForOneRepeat) {
  const std::vector<double> items = {1, 1, 0, 1};
  EXPECT_EQ(AccuracyInterval(items, 3, 4, 1).low, Wilson(3, 4).low);
}

TEST(AccuracyIntervalTest, AllCorrectInEveryRepeatIsNotCertainty) {
  const std::vector<double> items(20, 1.0);
  const Interval interval = AccuracyInterval(items, 80, 80, 4);
  EXPECT_LT(interval.low, 0.97);
  EXPECT_EQ(interval.high, 1);
}

TEST(AccuracyIntervalTest, RepeatsOfTheSameItemsDoNotMakeUpForFewItems) {
  // Half of 20 items are always right, half never: 64 repeats know no more than one.
  std::vector<double> items(20, 1.0);
  std::fill(items.begin(), items.begin() + 10, 0.0);
  const Interval interval = AccuracyInterval(items, 640, 1280, 64);
  EXPECT_LT(interval.low, 0.32);
  EXPECT_GT(interval.high, 0.68);
}

// p = [0.01, 0.04, 0.03, 0.005, 0.5]; statsmodels' multipletests(p, method='holm') by hand:
// 5*0.005, 4*0.01, 3*0.03, then never below the one before.
TEST(HolmTest, ScalesByRankAndNeverDecreases) {
  const std::vector<double> p = {0.01, 0.04, 0.03, 0.005, 0.5};
  EXPECT_THAT(Holm(p), testing::ElementsAre(testing::DoubleEq(0.04), testing::DoubleEq(0.09),
                                            testing::DoubleEq(0.09), testing::DoubleEq(0.025),
                                            testing::DoubleEq(0.5)));
  EXPECT_TRUE(Holm({}).empty());
}

}  // namespace
}  // namespace assay::statistics
