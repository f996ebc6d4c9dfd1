#include "coordinator/reports/results.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <optional>

#include "base/names.h"
#include "base/status.h"
#include "coordinator/statistics/statistics.h"

namespace assay::coordinator {
namespace {

constexpr char kNoGroup[] = "none";

std::optional<int64_t> AsNumber(const std::string& text) {
  int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [next, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || next != end) return std::nullopt;
  return value;
}

// Numbers, then words, then what has none.
bool ComesBefore(const std::string& a, const std::string& b) {
  const auto rank = [](const std::string& name) {
    return name == kNoGroup ? 2 : AsNumber(name).has_value() ? 0 : 1;
  };
  if (rank(a) != rank(b)) return rank(a) < rank(b);
  if (rank(a) == 0) return *AsNumber(a) < *AsNumber(b);
  return a < b;
}

std::vector<ItemGroup> GroupBy(const std::vector<storage::ItemRecord>& items,
                               const std::string storage::ItemRecord::*field) {
  std::map<std::string, std::vector<int32_t>, decltype(&ComesBefore)> groups(&ComesBefore);
  for (const storage::ItemRecord& item : items) {
    const std::string& value = item.*field;
    groups[value.empty() ? kNoGroup : value].push_back(item.item_index);
  }
  std::vector<ItemGroup> sorted;
  if (groups.size() == 1 && groups.begin()->first == kNoGroup) return sorted;
  for (auto& [name, indices] : groups) sorted.push_back({name, std::move(indices)});
  return sorted;
}

double MeanTokens(const UnitGrid& grid, int32_t item) {
  double sum = 0;
  int64_t num_stored = 0;
  for (int32_t repeat = 0; repeat < grid.num_repeats(); ++repeat) {
    const UnitGrid::Unit& unit = grid.unit(item, repeat);
    if (!unit.stored) continue;
    sum += static_cast<double>(unit.completion_tokens);
    ++num_stored;
  }
  return num_stored == 0 ? -1 : sum / static_cast<double>(num_stored);
}

// The complete pairs of two arms.
struct Pairs {
  std::vector<double> item_drops;  // baseline - cell, of items with at least one pair
  int32_t num_repeats = 0;         // that both arms plan
  int64_t harmful = 0;
  int64_t beneficial = 0;
  int64_t both_correct = 0;
  int64_t both_wrong = 0;
  bool complete = true;  // every planned unit of both arms has its verdict

  int64_t num_pairs() const { return harmful + beneficial + both_correct + both_wrong; }
};

Pairs PairUp(const UnitGrid& baseline, const UnitGrid& cell, const ItemGroup& group) {
  Pairs pairs;
  pairs.num_repeats = std::min(baseline.num_repeats(), cell.num_repeats());
  for (const int32_t item : group.items) {
    int64_t harmful = 0;
    int64_t beneficial = 0;
    int64_t num_pairs = 0;
    for (int32_t repeat = 0; repeat < pairs.num_repeats; ++repeat) {
      const UnitGrid::Unit& before = baseline.unit(item, repeat);
      const UnitGrid::Unit& after = cell.unit(item, repeat);
      if (!before.graded() || !after.graded()) {
        pairs.complete = false;
        continue;
      }
      ++num_pairs;
      if (before.correct() == after.correct()) {
        ++(before.correct() ? pairs.both_correct : pairs.both_wrong);
      } else {
        ++(before.correct() ? harmful : beneficial);
      }
    }
    if (num_pairs == 0) continue;
    pairs.harmful += harmful;
    pairs.beneficial += beneficial;
    pairs.item_drops.push_back(static_cast<double>(harmful - beneficial) /
                               static_cast<double>(num_pairs));
  }
  return pairs;
}

// Accuracy, lengths and counts of one arm.
void FillArm(const UnitGrid& cell, const ItemGroup& group, ResultRow* row) {
  std::vector<double> item_means;
  double tokens = 0;
  for (const int32_t item : group.items) {
    int64_t graded = 0;
    int64_t correct = 0;
    for (int32_t repeat = 0; repeat < cell.num_repeats(); ++repeat) {
      const UnitGrid::Unit& unit = cell.unit(item, repeat);
      if (!unit.stored) continue;
      ++row->num_stored;
      row->num_rerolled += unit.rerolled ? 1 : 0;
      tokens += static_cast<double>(unit.completion_tokens);
      row->num_truncated += unit.truncated ? 1 : 0;
      row->num_ungradable += unit.verdict == storage::Verdict::kGraderError ? 1 : 0;
      graded += unit.graded() ? 1 : 0;
      correct += unit.correct() ? 1 : 0;
    }
    row->num_samples += graded;
    row->num_correct += correct;
    if (graded > 0) {
      item_means.push_back(static_cast<double>(correct) / static_cast<double>(graded));
    }
  }
  row->num_units = static_cast<int64_t>(group.items.size()) * cell.num_repeats();
  if (row->num_stored > 0) {
    row->mean_output_tokens = tokens / static_cast<double>(row->num_stored);
  }
  if (!item_means.empty()) {
    row->accuracy = std::accumulate(item_means.begin(), item_means.end(), 0.0) /
                    static_cast<double>(item_means.size());
  }
  const statistics::Interval interval = statistics::AccuracyInterval(
      item_means, row->num_correct, row->num_samples, cell.num_repeats());
  row->ci_low = interval.low;
  row->ci_high = interval.high;
}

// The drop and what follows from it. Returns the comparison for whoever wants more of it.
statistics::PairedDrop FillDrop(const Pairs& pairs, ResultRow* row) {
  const statistics::PairedDrop paired =
      statistics::ComparePaired(pairs.item_drops, pairs.num_repeats);
  row->has_drop = !pairs.item_drops.empty();
  if (row->has_drop) {
    row->drop = paired.drop;
    row->drop_ci_low = paired.interval.low;
    row->drop_ci_high = paired.interval.high;
    if (pairs.num_repeats == 1) {
      row->mcnemar_p = statistics::McNemarP(pairs.harmful, pairs.beneficial);
    }
  }
  row->label = pairs.complete && row->has_drop
                   ? std::string(statistics::LabelName(statistics::DecideLabel(paired.interval)))
                   : "partial";
  return paired;
}

}  // namespace

UnitGrid::UnitGrid(int32_t num_items, int32_t num_repeats,
                   const std::vector<storage::UnitOutcome>& outcomes)
    : num_items_(num_items),
      num_repeats_(num_repeats),
      units_(static_cast<size_t>(num_items) * static_cast<size_t>(num_repeats)) {
  for (const storage::UnitOutcome& outcome : outcomes) {
    if (outcome.item_index < 0 || outcome.item_index >= num_items || outcome.repeat < 0 ||
        outcome.repeat >= num_repeats) {
      continue;
    }
    Unit& unit = units_[static_cast<size_t>(outcome.item_index) * static_cast<size_t>(num_repeats) +
                        static_cast<size_t>(outcome.repeat)];
    num_stored_ += unit.stored ? 0 : 1;
    unit.verdict = outcome.verdict;
    unit.stored = true;
    unit.truncated = outcome.truncated;
    unit.rerolled = outcome.rerolled;
    unit.completion_tokens = outcome.completion_tokens;
    unit.sample_id = outcome.sample_id;
  }
}

absl::StatusOr<Grouping> ParseGrouping(const std::string& by) {
  if (by.empty()) return Grouping::kNone;
  if (by == "level") return Grouping::kLevel;
  if (by == "subject") return Grouping::kSubject;
  if (by == "length") return Grouping::kLength;
  static const std::vector<std::string> kKnown = {"level", "subject", "length"};
  return InvalidArgument("results by '{}'{}: there are level, subject and length", by,
                         DidYouMean(by, kKnown));
}

std::vector<ItemGroup> GroupByLevel(const std::vector<storage::ItemRecord>& items) {
  return GroupBy(items, &storage::ItemRecord::level);
}

std::vector<ItemGroup> GroupBySubject(const std::vector<storage::ItemRecord>& items) {
  return GroupBy(items, &storage::ItemRecord::subject);
}

std::vector<ItemGroup> GroupByLength(const UnitGrid& baseline) {
  constexpr size_t kNumGroups = 4;
  std::vector<std::pair<double, int32_t>> by_length;
  for (int32_t item = 0; item < baseline.num_items(); ++item) {
    const double tokens = MeanTokens(baseline, item);
    if (tokens >= 0) by_length.emplace_back(tokens, item);
  }
  std::sort(by_length.begin(), by_length.end());
  std::vector<ItemGroup> groups;
  for (size_t i = 0; i < kNumGroups; ++i) {
    const size_t begin = by_length.size() * i / kNumGroups;
    const size_t end = by_length.size() * (i + 1) / kNumGroups;
    if (begin == end) continue;
    ItemGroup group;
    group.name = fmt::format("q{} {:.0f}-{:.0f}", groups.size() + 1, by_length[begin].first,
                             by_length[end - 1].first);
    for (size_t j = begin; j < end; ++j) group.items.push_back(by_length[j].second);
    groups.push_back(std::move(group));
  }
  return groups;
}

ItemGroup AllItems(int32_t num_items) {
  ItemGroup all{"all", std::vector<int32_t>(static_cast<size_t>(num_items))};
  std::iota(all.items.begin(), all.items.end(), 0);
  return all;
}

ResultRow ComputeRow(const ResultRow& names, const UnitGrid& cell, const UnitGrid* baseline,
                     bool is_baseline, const ItemGroup& group) {
  ResultRow row = names;
  row.group = group.name;
  FillArm(cell, group, &row);
  if (baseline != nullptr) {
    FillDrop(PairUp(*baseline, cell, group), &row);
  } else if (is_baseline) {
    row.label = row.num_samples == row.num_units ? "baseline" : "partial";
  }
  return row;
}

Comparison ComputeComparison(const ResultRow& baseline_names, const UnitGrid& baseline,
                             const ResultRow& cell_names, const UnitGrid& cell) {
  Comparison comparison;
  const ItemGroup all = AllItems(std::min(baseline.num_items(), cell.num_items()));
  comparison.baseline = ComputeRow(baseline_names, baseline, nullptr, /*is_baseline=*/true, all);
  comparison.cell = cell_names;
  FillArm(cell, all, &comparison.cell);
  const Pairs pairs = PairUp(baseline, cell, all);
  const statistics::PairedDrop paired = FillDrop(pairs, &comparison.cell);

  comparison.num_pairs = pairs.num_pairs();
  comparison.both_correct = pairs.both_correct;
  comparison.both_wrong = pairs.both_wrong;
  comparison.harmful_flips = pairs.harmful;
  comparison.beneficial_flips = pairs.beneficial;
  comparison.tost_p_1pp = paired.tost_p_1pp;
  comparison.tost_p_3pp = paired.tost_p_3pp;
  comparison.permutation_p = statistics::SignFlipP(pairs.item_drops, pairs.num_repeats);

  double log_ratios = 0;
  int64_t num_ratios = 0;
  for (const int32_t item : all.items) {
    for (int32_t repeat = 0; repeat < pairs.num_repeats; ++repeat) {
      const UnitGrid::Unit& before = baseline.unit(item, repeat);
      const UnitGrid::Unit& after = cell.unit(item, repeat);
      if (before.completion_tokens > 0 && after.completion_tokens > 0) {
        log_ratios += std::log(static_cast<double>(after.completion_tokens) /
                               static_cast<double>(before.completion_tokens));
        ++num_ratios;
      }
      if (!before.graded() || !after.graded() || before.correct() == after.correct()) continue;
      comparison.flips.push_back(
          {item, repeat, before.correct(), before.sample_id, after.sample_id});
    }
  }
  if (num_ratios > 0) {
    comparison.mean_length_log_ratio = log_ratios / static_cast<double>(num_ratios);
  }
  std::stable_partition(comparison.flips.begin(), comparison.flips.end(),
                        [](const Flip& flip) { return flip.harmful; });
  if (comparison.flips.size() > kMaxFlips) comparison.flips.resize(kMaxFlips);
  return comparison;
}

}  // namespace assay::coordinator
