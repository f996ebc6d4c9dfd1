// The statistics of a comparison: how sure we are of an accuracy, of a drop, and of the label that
// follows from it. Method, reasons and evidence: README.md of this folder.
//
// Pure functions over numbers: no I/O, no clock, nothing but the standard library; thread-safe.
// Random ones use a fixed seed, so the same data always give the same interval.
//
// Units: accuracies and drops are 0..1 (a drop -1..1, positive is worse); margins are in points
// (percentage points). An item's value is its mean over repeats.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace assay::statistics {

struct Interval {
  double low = 0;
  double high = 0;
};

inline constexpr double kConfidence = 0.95;
inline constexpr int kNumResamples = 10'000;
inline constexpr uint64_t kBootstrapSeed = 20250407;

// Wilson's score interval of a proportion. {0, 1} without samples.
Interval Wilson(int64_t num_correct, int64_t num_samples, double confidence = kConfidence);

// Percentile bootstrap of the mean over items: resample the items with replacement. The values must
// not be empty. `denominator` is a hint: where all values are multiples of 1/denominator (item
// means over as many repeats) a faster way to the same distribution is taken.
Interval BootstrapMean(std::span<const double> items, int denominator = 1,
                       double confidence = kConfidence, int num_resamples = kNumResamples,
                       uint64_t seed = kBootstrapSeed);

// The interval of an accuracy. One repeat: Wilson. Several: bootstrap over items, widened to
// Wilson's over all samples, because answers that all agree would give a width of zero.
Interval AccuracyInterval(std::span<const double> item_means, int64_t num_correct,
                          int64_t num_samples, int num_repeats);

// A paired comparison of two arms on the same items: value i is the baseline's item mean minus the
// other's.
//
// What has not been seen in n pairs is not impossible. All intervals and tests of equivalence are
// computed on the drops with two pseudo-items added, in one of which one answer flipped to wrong
// and in the other one to right: +1/k and -1/k for k repeats. Without any flip in n items this
// gives about [-3/n, 3/n], the rule of three, where the plain bootstrap gives [0, 0].
struct PairedDrop {
  double drop = 0;        // mean over items, as observed
  Interval interval;      // 95 %, bootstrap over items and pseudo-items
  double tost_p_1pp = 1;  // equivalence within 1 point (Student's t, two one-sided tests)
  double tost_p_3pp = 1;
};
PairedDrop ComparePaired(std::span<const double> item_drops, int num_repeats);

// Exact two-sided McNemar test on the discordant pairs.
double McNemarP(int64_t harmful, int64_t beneficial);

// Two-sided sign-flip permutation test of a zero mean drop over items; exact where the drops are
// multiples of 1/num_repeats and that is cheap, else by 10,000 random flips.
double SignFlipP(std::span<const double> item_drops, int num_repeats,
                 uint64_t seed = kBootstrapSeed);

// Two one-sided t-tests of |mean| < margin (0..1): the larger p. 1 when there are fewer than two
// values; 0 or 1 when they are all equal.
double TostP(std::span<const double> values, double margin);

// The study's classes: below 1 point, 1 to 3, above 3; the whole interval or nothing.
enum class Label { kLossless, kFair, kRisky, kUndecided };
Label DecideLabel(const Interval& drop);
std::string_view LabelName(Label label);  // "lossless", ...

// Holm's adjusted p-values, in the order of the input.
std::vector<double> Holm(std::span<const double> p_values);

}  // namespace assay::statistics
