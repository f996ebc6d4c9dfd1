// From outcomes to the table: accuracies, intervals, drops, labels. Pure: what is read from the
// store comes in as values (build_results.h does the reading).
//
// Rules:
//   - An accuracy is the mean over items of the mean over graded repeats. An answer that the grader
//     failed on is not wrong, it is ungradable: left out and counted beside.
//   - A drop uses complete pairs only: units (item, repeat) graded in both arms.
//   - While any planned unit of either arm lacks its verdict, the label is "partial": what finishes
//     first is short and easy, so an early label would be a wrong one.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "storage/stores/records.h"
#include "storage/stores/results.h"

namespace assay::coordinator {

// Fields as in assay.v1.ResultRow.
struct ResultRow {
  int64_t cell_id = 0;
  std::string model;
  std::string method;  // as people say it
  std::string bits;
  std::string benchmark;
  std::string group = "all";
  int64_t num_samples = 0;  // graded
  int64_t num_correct = 0;
  double accuracy = 0;
  double ci_low = 0;
  double ci_high = 1;
  bool has_drop = false;
  double drop = 0;
  double drop_ci_low = 0;
  double drop_ci_high = 0;
  std::string label;              // empty: no baseline to compare with
  double mean_output_tokens = 0;  // over stored samples; a cut answer counts as far as it went
  int64_t num_truncated = 0;
  int64_t num_ungradable = 0;
  int64_t num_units = 0;  // planned
  int64_t num_stored = 0;
  int64_t num_rerolled = 0;  // samples of a later attempt than their unit's first
  double mcnemar_p = -1;     // -1: more than one repeat, or no drop
};

// What a cell's units came to, by place: unit(item, repeat) without a search.
class UnitGrid {
 public:
  struct Unit {
    storage::Verdict verdict = storage::Verdict::kNone;
    bool stored = false;  // there is a sample
    bool truncated = false;
    bool rerolled = false;
    int64_t completion_tokens = 0;
    int64_t sample_id = 0;

    bool graded() const {
      return verdict == storage::Verdict::kCorrect || verdict == storage::Verdict::kWrong ||
             verdict == storage::Verdict::kNoAnswer;
    }
    bool correct() const { return verdict == storage::Verdict::kCorrect; }
  };

  // Outcomes beyond the planned items and repeats are left out.
  UnitGrid(int32_t num_items, int32_t num_repeats,
           const std::vector<storage::UnitOutcome>& outcomes);

  int32_t num_items() const { return num_items_; }
  int32_t num_repeats() const { return num_repeats_; }
  const Unit& unit(int32_t item, int32_t repeat) const {
    return units_[static_cast<size_t>(item) * static_cast<size_t>(num_repeats_) +
                  static_cast<size_t>(repeat)];
  }
  int64_t num_stored() const { return num_stored_; }

 private:
  int32_t num_items_;
  int32_t num_repeats_;
  int64_t num_stored_ = 0;
  std::vector<Unit> units_;
};

enum class Grouping { kNone, kLevel, kSubject, kLength };

// "", "level", "subject", "length"; INVALID_ARGUMENT for anything else.
absl::StatusOr<Grouping> ParseGrouping(const std::string& by);

// Items of a benchmark, sorted into groups. Every arm of a comparison uses the same groups.
struct ItemGroup {
  std::string name;
  std::vector<int32_t> items;
};
// Numbers in numeric order, then words; items without one form the group "none". No groups when no
// item has one.
std::vector<ItemGroup> GroupByLevel(const std::vector<storage::ItemRecord>& items);
std::vector<ItemGroup> GroupBySubject(const std::vector<storage::ItemRecord>& items);
// Quarters by the baseline's mean output tokens: "q1 12-63" to "q4 200-512". Grouping by an arm's
// own lengths would put its failures into a group of their own.
std::vector<ItemGroup> GroupByLength(const UnitGrid& baseline);

// A row over some items of a cell. `names` gives the text columns. `baseline` is null when the cell
// is the baseline (`is_baseline`) or has none; otherwise it is of the same benchmark version.
ResultRow ComputeRow(const ResultRow& names, const UnitGrid& cell, const UnitGrid* baseline,
                     bool is_baseline, const ItemGroup& group);

// All items: the group "all".
ItemGroup AllItems(int32_t num_items);

struct Flip {
  int32_t item_index = 0;
  int32_t repeat = 0;
  bool harmful = false;  // right in the baseline, wrong in the cell
  int64_t baseline_sample_id = 0;
  int64_t sample_id = 0;
};

// Fields as in assay.v1.CompareCellsResponse.
struct Comparison {
  ResultRow baseline;
  ResultRow cell;
  int64_t num_pairs = 0;
  int64_t both_correct = 0;
  int64_t both_wrong = 0;
  int64_t harmful_flips = 0;
  int64_t beneficial_flips = 0;
  double tost_p_1pp = 1;
  double tost_p_3pp = 1;
  double permutation_p = 1;
  double mean_length_log_ratio = 0;  // natural log of cell tokens over baseline tokens, over pairs
  std::vector<Flip> flips;           // harmful first, in item order; at most kMaxFlips
};
inline constexpr size_t kMaxFlips = 100;

Comparison ComputeComparison(const ResultRow& baseline_names, const UnitGrid& baseline,
                             const ResultRow& cell_names, const UnitGrid& cell);

}  // namespace assay::coordinator
