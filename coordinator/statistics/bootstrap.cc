// The percentile bootstrap, by counts instead of by items.
//
// A resample of n items is a multinomial draw over their distinct values, and its mean depends on
// nothing else. Drops take few values: -1, 0 and 1 with one repeat, most of them 0. So a resample
// costs two table look-ups (how many of the commonest value, how many of the next among the rest)
// plus, with more than three values, one draw for each item of a rarer one; drawing every item
// would cost n. The distribution is the same.
//
// With several repeats there are many values, and most items have a rare one. Then the draws are
// made once for all arms of a benchmark, as counts per item, and a resample's mean is the inner
// product of its counts with the items' numbers of right answers: whole numbers, sixteen at a time.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "coordinator/statistics/distributions.h"
#include "coordinator/statistics/random.h"
#include "coordinator/statistics/statistics.h"

namespace assay::statistics {
namespace {

// Draws from Binomial(n, p) by inverting its distribution function, tabulated where it is not
// negligible.
class BinomialTable {
 public:
  BinomialTable(int64_t n, double p) {
    if (n == 0 || p <= 0 || p >= 1) {
      first_ = p >= 1 ? n : 0;
      cumulative_ = {1.0};
      return;
    }
    constexpr double kNegligible = 1e-18;
    const auto size = static_cast<double>(n);
    const auto mode = static_cast<int64_t>(p * (size + 1));
    const double odds = p / (1 - p);
    const double at_mode = std::exp(LogBinomial(n, mode) + static_cast<double>(mode) * std::log(p) +
                                    static_cast<double>(n - mode) * std::log1p(-p));
    std::vector<double> below;  // from the mode downwards
    double mass = at_mode;
    for (int64_t k = mode; k > 0 && mass > kNegligible; --k) {
      mass *= static_cast<double>(k) / (static_cast<double>(n - k + 1) * odds);
      below.push_back(mass);
    }
    first_ = mode - static_cast<int64_t>(below.size());
    cumulative_.assign(below.rbegin(), below.rend());
    mass = at_mode;
    cumulative_.push_back(mass);
    for (int64_t k = mode; k < n && mass > kNegligible; ++k) {
      mass *= static_cast<double>(n - k) / static_cast<double>(k + 1) * odds;
      cumulative_.push_back(mass);
    }
    double sum = 0;
    for (double& value : cumulative_) value = sum += value;
    for (double& value : cumulative_) value /= sum;
    cumulative_.back() = 1;
  }

  int64_t Draw(Random* random) const {
    const double u = random->Uniform();
    return first_ +
           (std::upper_bound(cumulative_.begin(), cumulative_.end(), u) - cumulative_.begin());
  }

 private:
  int64_t first_ = 0;
  std::vector<double> cumulative_;
};

// The means of resamples of the items.
class Resampler {
 public:
  explicit Resampler(std::span<const double> items)
      : num_items_(static_cast<int64_t>(items.size())) {
    std::map<double, int64_t> counts;
    for (const double item : items) ++counts[item];
    std::vector<std::pair<int64_t, double>> by_count;
    by_count.reserve(counts.size());
    for (const auto& [value, count] : counts) by_count.emplace_back(count, value);
    std::stable_sort(by_count.begin(), by_count.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });

    commonest_ = by_count[0].second;
    const int64_t num_others = num_items_ - by_count[0].first;
    num_commonest_ =
        std::make_unique<BinomialTable>(num_items_, Share(by_count[0].first, num_items_));
    if (by_count.size() == 1) return;
    second_ = by_count[1].second;
    share_of_second_ = Share(by_count[1].first, num_others);
    second_tables_.resize(items.size() + 1);
    num_rare_values_ = by_count.size() - 2;
    for (size_t i = 2; i < by_count.size(); ++i) {
      rare_.insert(rare_.end(), static_cast<size_t>(by_count[i].first), by_count[i].second);
    }
  }

  double Mean(Random* random) {
    const int64_t commonest = num_commonest_->Draw(random);
    double sum = commonest_ * static_cast<double>(commonest);
    const int64_t others = num_items_ - commonest;
    if (others > 0) {
      const int64_t second = TableOfSecond(others).Draw(random);
      sum += second_ * static_cast<double>(second);
      const int64_t rare = others - second;
      if (num_rare_values_ == 1) {
        sum += rare_[0] * static_cast<double>(rare);
      } else {
        for (int64_t i = 0; i < rare; ++i) {
          sum += rare_[random->Below(static_cast<uint32_t>(rare_.size()))];
        }
      }
    }
    return sum / static_cast<double>(num_items_);
  }

 private:
  static double Share(int64_t part, int64_t whole) {
    return static_cast<double>(part) / static_cast<double>(whole);
  }

  const BinomialTable& TableOfSecond(int64_t num_others) {
    std::unique_ptr<BinomialTable>& table = second_tables_[static_cast<size_t>(num_others)];
    if (table == nullptr) table = std::make_unique<BinomialTable>(num_others, share_of_second_);
    return *table;
  }

  const int64_t num_items_;
  double commonest_ = 0;
  double second_ = 0;
  double share_of_second_ = 0;  // among those that are not the commonest
  std::vector<double> rare_;
  std::unique_ptr<BinomialTable> num_commonest_;
  std::vector<std::unique_ptr<BinomialTable>> second_tables_;  // by the number of draws
  size_t num_rare_values_ = 0;
};

// How often each of n items is drawn in each of many resamples. The same for all data of n items:
// the seed is fixed.
class Draws {
 public:
  static constexpr size_t kMostItems = 2048;  // 20 MiB of counts

  // Those used last are kept, so that the cells of a sweep share them: all items of a benchmark and
  // its groups, each also with pseudo-items. Thread-safe.
  static std::shared_ptr<const Draws> Of(size_t num_items, int num_resamples, uint64_t seed) {
    constexpr size_t kMostBytes = 24 << 20;
    static std::mutex mutex;
    static std::deque<std::shared_ptr<const Draws>> kept;  // used last at the end
    const std::lock_guard lock(mutex);
    const auto known = std::find_if(kept.begin(), kept.end(), [&](const auto& draws) {
      return draws->num_items_ == num_items && draws->num_resamples_ == num_resamples &&
             draws->seed_ == seed;
    });
    if (known != kept.end()) {
      std::rotate(known, known + 1, kept.end());
    } else {
      kept.push_back(std::make_shared<const Draws>(num_items, num_resamples, seed));
      size_t num_bytes = 0;
      for (const auto& draws : kept) num_bytes += draws->counts_.size();
      for (; num_bytes > kMostBytes && kept.size() > 1; kept.pop_front()) {
        num_bytes -= kept.front()->counts_.size();
      }
    }
    return kept.back();
  }

  Draws(size_t num_items, int num_resamples, uint64_t seed)
      : num_items_(num_items),
        num_resamples_(num_resamples),
        seed_(seed),
        stride_((num_items + kBlock - 1) / kBlock * kBlock),
        counts_(stride_ * static_cast<size_t>(num_resamples)) {
    Random random(seed);
    for (size_t resample = 0; resample < static_cast<size_t>(num_resamples); ++resample) {
      uint8_t* const counts = counts_.data() + resample * stride_;
      for (size_t i = 0; i < num_items; ++i) {
        uint8_t& count = counts[random.Below(static_cast<uint32_t>(num_items))];
        if (count < 255) ++count;  // beyond: less likely than 1e-400
      }
    }
  }

  // The sums of every resample; `items` has one number an item, of at most 16 bits.
  std::vector<int32_t> Sums(std::vector<int16_t> items) const {
    items.resize(stride_);
    std::vector<int32_t> sums;
    sums.reserve(static_cast<size_t>(num_resamples_));
    for (size_t at = 0; at < counts_.size(); at += stride_) {
      const uint8_t* const counts = counts_.data() + at;
      int32_t sum = 0;
      for (size_t i = 0; i < stride_; ++i) sum += int32_t{counts[i]} * int32_t{items[i]};
      sums.push_back(sum);
    }
    return sums;
  }

 private:
  static constexpr size_t kBlock = 16;

  const size_t num_items_;
  const int num_resamples_;
  const uint64_t seed_;
  const size_t stride_;
  std::vector<uint8_t> counts_;  // [num_resamples][stride_]
};

// `items` times `denominator`, where these are whole numbers of 16 bits that sum up within 32.
std::optional<std::vector<int16_t>> AsWholeNumbers(std::span<const double> items, int denominator) {
  if (items.size() > Draws::kMostItems || denominator > 1024) return std::nullopt;
  std::vector<int16_t> whole;
  whole.reserve(items.size());
  for (const double item : items) {
    const double scaled = item * denominator;
    const double rounded = std::round(scaled);
    if (std::abs(scaled - rounded) > 1e-6 || std::abs(rounded) > denominator) return std::nullopt;
    whole.push_back(static_cast<int16_t>(rounded));
  }
  std::sort(whole.begin(), whole.end());  // the result does not depend on the order of the items
  return whole;
}

// Linear interpolation between order statistics, as numpy.percentile. Reorders the values.
double Percentile(std::vector<double>* values, double fraction) {
  const double position = fraction * static_cast<double>(values->size() - 1);
  const auto below = static_cast<size_t>(position);
  const auto at = values->begin() + static_cast<std::ptrdiff_t>(below);
  std::nth_element(values->begin(), at, values->end());
  const double low = *at;
  if (below + 1 == values->size()) return low;
  const double high = *std::min_element(at + 1, values->end());
  return low + (position - static_cast<double>(below)) * (high - low);
}

}  // namespace

Interval BootstrapMean(std::span<const double> items, int denominator, double confidence,
                       int num_resamples, uint64_t seed) {
  std::vector<double> means(static_cast<size_t>(num_resamples));
  const std::optional<std::vector<int16_t>> whole =
      denominator > 1 ? AsWholeNumbers(items, denominator) : std::nullopt;
  if (whole.has_value()) {
    const auto draws = Draws::Of(items.size(), num_resamples, seed);
    const std::vector<int32_t> sums = draws->Sums(*whole);
    const double scale = 1 / (static_cast<double>(denominator) * static_cast<double>(items.size()));
    std::transform(sums.begin(), sums.end(), means.begin(),
                   [scale](int32_t sum) { return static_cast<double>(sum) * scale; });
  } else {
    Resampler resampler(items);
    Random random(seed);
    for (double& mean : means) mean = resampler.Mean(&random);
  }
  const double tail = (1 - confidence) / 2;
  const double low = Percentile(&means, tail);
  return {low, Percentile(&means, 1 - tail)};
}

}  // namespace assay::statistics
