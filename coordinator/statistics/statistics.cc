#include "coordinator/statistics/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "coordinator/statistics/distributions.h"
#include "coordinator/statistics/random.h"

namespace assay::statistics {
namespace {

constexpr double kPoint = 0.01;

double Mean(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// P(|sum of +-a_i| >= observed) over all choices of signs, exactly: the distribution of the sum of
// those a_i that get a plus, built up one value at a time.
double ExactSignFlipP(const std::vector<int64_t>& magnitudes, int64_t total, int64_t observed) {
  std::vector<double> probability(static_cast<size_t>(total) + 1, 0.0);
  probability[0] = 1;
  size_t reached = 0;
  for (const int64_t magnitude : magnitudes) {
    const auto step = static_cast<size_t>(magnitude);
    reached += step;
    for (size_t sum = reached + 1; sum-- > 0;) {
      const double with_plus = sum >= step ? probability[sum - step] : 0.0;
      probability[sum] = 0.5 * (probability[sum] + with_plus);
    }
  }
  double p = 0;
  for (int64_t plus = 0; plus <= total; ++plus) {
    if (std::abs(2 * plus - total) >= observed) p += probability[static_cast<size_t>(plus)];
  }
  return std::min(p, 1.0);
}

double RandomSignFlipP(std::span<const double> drops, uint64_t seed) {
  const double observed = std::abs(std::accumulate(drops.begin(), drops.end(), 0.0));
  Random random(seed);
  int at_least = 1;  // the observed signs are one of the possible choices
  for (int i = 0; i < kNumResamples; ++i) {
    double sum = 0;
    uint64_t signs = 0;
    int signs_left = 0;
    for (const double drop : drops) {
      if (signs_left == 0) {
        signs = random.Next();
        signs_left = 64;
      }
      sum += (signs & 1) != 0 ? drop : -drop;
      signs >>= 1;
      --signs_left;
    }
    if (std::abs(sum) >= observed - 1e-9) ++at_least;
  }
  return static_cast<double>(at_least) / (kNumResamples + 1);
}

}  // namespace

Interval Wilson(int64_t num_correct, int64_t num_samples, double confidence) {
  if (num_samples <= 0) return {0, 1};
  const double z = NormalQuantile(0.5 + confidence / 2);
  const auto n = static_cast<double>(num_samples);
  const double p = static_cast<double>(num_correct) / n;
  const double center = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z / (1 + z * z / n) * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  // At the ends the formula gives exactly 0 and 1, up to rounding.
  return {num_correct == 0 ? 0 : std::max(0.0, center - half),
          num_correct == num_samples ? 1 : std::min(1.0, center + half)};
}

Interval AccuracyInterval(std::span<const double> item_means, int64_t num_correct,
                          int64_t num_samples, int num_repeats) {
  const Interval wilson = Wilson(num_correct, num_samples);
  if (num_repeats <= 1 || item_means.empty()) return wilson;
  const Interval bootstrap = BootstrapMean(item_means, num_repeats);
  return {std::min(wilson.low, bootstrap.low), std::max(wilson.high, bootstrap.high)};
}

PairedDrop ComparePaired(std::span<const double> item_drops, int num_repeats) {
  PairedDrop result;
  result.interval = {-1, 1};
  if (item_drops.empty()) return result;
  result.drop = Mean(item_drops);

  std::vector<double> with_pseudo_items(item_drops.begin(), item_drops.end());
  const double flip = 1.0 / std::max(num_repeats, 1);
  with_pseudo_items.push_back(flip);
  with_pseudo_items.push_back(-flip);
  result.interval = BootstrapMean(with_pseudo_items, num_repeats);
  result.tost_p_1pp = TostP(with_pseudo_items, 1 * kPoint);
  result.tost_p_3pp = TostP(with_pseudo_items, 3 * kPoint);
  return result;
}

double McNemarP(int64_t harmful, int64_t beneficial) {
  const int64_t smaller = std::min(harmful, beneficial);
  return std::min(1.0, 2 * FairBinomialCdf(smaller, harmful + beneficial));
}

double SignFlipP(std::span<const double> item_drops, int num_repeats, uint64_t seed) {
  constexpr double kMaxSteps = 5e7;
  std::vector<int64_t> magnitudes;
  int64_t total = 0;
  int64_t sum = 0;
  bool all_whole = true;
  for (const double drop : item_drops) {
    const double flips = drop * num_repeats;
    const int64_t whole = std::llround(flips);
    all_whole = all_whole && std::abs(flips - static_cast<double>(whole)) < 1e-6;
    if (whole != 0) magnitudes.push_back(std::abs(whole));
    total += std::abs(whole);
    sum += whole;
  }
  const double steps = static_cast<double>(magnitudes.size()) * static_cast<double>(total);
  if (all_whole && steps <= kMaxSteps) return ExactSignFlipP(magnitudes, total, std::abs(sum));
  return RandomSignFlipP(item_drops, seed);
}

double TostP(std::span<const double> values, double margin) {
  if (values.size() < 2) return 1;
  const auto n = static_cast<double>(values.size());
  const double mean = Mean(values);
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  const double standard_error = std::sqrt(squares / (n - 1) / n);
  if (standard_error == 0) return std::abs(mean) < margin ? 0 : 1;
  const double above_lower = StudentCdf(-(mean + margin) / standard_error, n - 1);
  const double below_upper = StudentCdf((mean - margin) / standard_error, n - 1);
  return std::max(above_lower, below_upper);
}

Label DecideLabel(const Interval& drop) {
  constexpr double kRounding = 1e-12;  // 0.01 reached by sums of fractions is still 1 point
  const double fair_from = 1 * kPoint;
  const double fair_to = 3 * kPoint;
  if (drop.high < fair_from - kRounding) return Label::kLossless;
  if (drop.low >= fair_from - kRounding && drop.high <= fair_to + kRounding) return Label::kFair;
  if (drop.low > fair_to + kRounding) return Label::kRisky;
  return Label::kUndecided;
}

std::string_view LabelName(Label label) {
  switch (label) {
    case Label::kLossless:
      return "lossless";
    case Label::kFair:
      return "fair";
    case Label::kRisky:
      return "risky";
    case Label::kUndecided:
      break;
  }
  return "undecided";
}

std::vector<double> Holm(std::span<const double> p_values) {
  std::vector<size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return p_values[a] < p_values[b]; });
  std::vector<double> adjusted(p_values.size());
  double largest = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    const double scaled = p_values[order[rank]] * static_cast<double>(order.size() - rank);
    largest = std::max(largest, std::min(scaled, 1.0));
    adjusted[order[rank]] = largest;
  }
  return adjusted;
}

}  // namespace assay::statistics
