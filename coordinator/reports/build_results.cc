#include "coordinator/reports/build_results.h"

#include <algorithm>
#include <future>
#include <iterator>
#include <map>
#include <memory>
#include <utility>

#include "base/status.h"

namespace assay::coordinator {
namespace {

ResultRow NamesOf(const storage::CellSummary& cell) {
  ResultRow names;
  names.cell_id = cell.cell.id;
  names.model = cell.model.name;
  names.method = cell.cell.method.label.empty() ? cell.cell.method.method : cell.cell.method.label;
  names.bits = cell.cell.method.bits;
  names.benchmark = cell.benchmark.name;
  return names;
}

// What the rows of a cell are computed from.
struct CellInput {
  ResultRow names;
  std::shared_ptr<const UnitGrid> grid;
  std::shared_ptr<const UnitGrid> baseline;
  bool is_baseline = false;
  std::vector<ItemGroup> groups;
};

std::vector<ResultRow> ComputeRows(const CellInput& input) {
  std::vector<ResultRow> rows;
  rows.reserve(input.groups.size());
  for (const ItemGroup& group : input.groups) {
    rows.push_back(
        ComputeRow(input.names, *input.grid, input.baseline.get(), input.is_baseline, group));
  }
  return rows;
}

// Reads what rows need, keeping only what later cells use again: the baselines and the items.
class ResultsReader {
 public:
  ResultsReader(storage::ReadStore* store, Grouping grouping)
      : store_(store), grouping_(grouping) {}

  absl::StatusOr<CellInput> Read(const storage::SweepCellSummary& place) {
    CellInput input;
    const storage::CellSummary& cell = place.cell;
    const int64_t baseline_id = place.place.baseline_cell_id;
    ASSAY_ASSIGN_OR_RETURN(input.grid,
                           Grid(cell.cell.id, place.place, /*is_baseline=*/baseline_id == 0));
    if (baseline_id != 0) {
      ASSAY_ASSIGN_OR_RETURN(input.baseline, Grid(baseline_id, place.place, /*is_baseline=*/true));
    }
    // A cell without a baseline is the baseline only if it is the model as it is.
    input.is_baseline = baseline_id == 0 && cell.cell.artifact_id == 0;
    input.names = NamesOf(cell);
    input.groups = {AllItems(place.place.num_items)};
    ASSAY_ASSIGN_OR_RETURN(const std::vector<ItemGroup> parts,
                           Groups(cell.cell.benchmark_id, place.place.num_items,
                                  input.baseline != nullptr ? input.baseline.get()
                                  : input.is_baseline       ? input.grid.get()
                                                            : nullptr));
    input.groups.insert(input.groups.end(), parts.begin(), parts.end());
    return input;
  }

 private:
  absl::StatusOr<std::shared_ptr<const UnitGrid>> Grid(int64_t cell_id,
                                                       const storage::SweepCellRecord& place,
                                                       bool is_baseline) {
    const auto known = baselines_.find(cell_id);
    if (known != baselines_.end()) return known->second;
    ASSAY_ASSIGN_OR_RETURN(const std::vector<storage::UnitOutcome> outcomes,
                           store_->Outcomes(cell_id, place.num_items, place.num_repeats));
    auto grid = std::make_shared<const UnitGrid>(place.num_items, place.num_repeats, outcomes);
    if (is_baseline) baselines_.emplace(cell_id, grid);
    return grid;
  }

  absl::StatusOr<std::vector<ItemGroup>> Groups(int64_t benchmark_id, int32_t num_items,
                                                const UnitGrid* baseline) {
    if (grouping_ == Grouping::kNone) return std::vector<ItemGroup>();
    if (grouping_ == Grouping::kLength) {
      return baseline == nullptr ? std::vector<ItemGroup>() : GroupByLength(*baseline);
    }
    const auto known = groups_.find({benchmark_id, num_items});
    if (known != groups_.end()) return known->second;
    ASSAY_ASSIGN_OR_RETURN(std::vector<storage::ItemRecord> items, store_->Items(benchmark_id));
    std::erase_if(items, [&](const storage::ItemRecord& item) {
      return item.item_index < 0 || item.item_index >= num_items;
    });
    std::vector<ItemGroup> groups =
        grouping_ == Grouping::kLevel ? GroupByLevel(items) : GroupBySubject(items);
    groups_.emplace(std::pair(benchmark_id, num_items), groups);
    return groups;
  }

  storage::ReadStore* const store_;
  const Grouping grouping_;
  std::map<int64_t, std::shared_ptr<const UnitGrid>> baselines_;
  std::map<std::pair<int64_t, int32_t>, std::vector<ItemGroup>> groups_;
};

struct ComparedCell {
  storage::CellSummary summary;
  std::vector<storage::UnitOutcome> outcomes;
  int32_t num_repeats = 1;  // as far as there are samples: no sweep says here how many are wanted
};

absl::StatusOr<ComparedCell> ReadCell(storage::ReadStore* store, int64_t cell_id) {
  ComparedCell cell;
  ASSAY_ASSIGN_OR_RETURN(cell.summary, store->GetCell(cell_id));
  ASSAY_ASSIGN_OR_RETURN(cell.outcomes, store->Outcomes(cell_id));
  for (const storage::UnitOutcome& outcome : cell.outcomes) {
    cell.num_repeats = std::max(cell.num_repeats, outcome.repeat + 1);
  }
  return cell;
}

absl::Status CheckPairable(const storage::CellSummary& a, const storage::CellSummary& b) {
  const bool same = a.benchmark.version_hash == b.benchmark.version_hash &&
                    a.benchmark.prompt_version == b.benchmark.prompt_version;
  if (same) return absl::OkStatus();
  const auto describe = [](const storage::CellSummary& cell) {
    return fmt::format("cell {} is on {} version {} prompt {}", cell.cell.id, cell.benchmark.name,
                       cell.benchmark.version_hash.substr(0, 12), cell.benchmark.prompt_version);
  };
  return InvalidArgument(
      "{}, {}: only cells on the same items and prompts can be paired; compare cells of one "
      "benchmark version",
      describe(a), describe(b));
}

}  // namespace

absl::StatusOr<SweepResults> BuildResults(storage::ReadStore& store, const std::string& sweep_id,
                                          const std::string& by) {
  ASSAY_ASSIGN_OR_RETURN(const Grouping grouping, ParseGrouping(by));
  ASSAY_ASSIGN_OR_RETURN(const auto snapshot, store.TakeSnapshot());
  ASSAY_ASSIGN_OR_RETURN(const storage::SweepRecord sweep, store.FindSweep(sweep_id));
  ASSAY_ASSIGN_OR_RETURN(const std::vector<storage::SweepCellSummary> cells,
                         store.SweepCells(sweep.id, /*with_counts=*/false));
  SweepResults results;
  results.sweep_name = sweep.name;
  results.complete = true;
  ResultsReader reader(&store, grouping);
  // One cell is computed while the next is read: each takes about half of the time.
  std::future<std::vector<ResultRow>> computed;
  const auto take = [&] {
    if (!computed.valid()) return;
    std::vector<ResultRow> rows = computed.get();
    std::move(rows.begin(), rows.end(), std::back_inserter(results.rows));
  };
  for (const storage::SweepCellSummary& cell : cells) {
    ASSAY_ASSIGN_OR_RETURN(CellInput input, reader.Read(cell));
    results.complete = results.complete && input.grid->num_stored() == cell.num_units();
    take();
    computed =
        std::async(std::launch::async, [input = std::move(input)] { return ComputeRows(input); });
  }
  take();
  return results;
}

absl::StatusOr<Comparison> BuildComparison(storage::ReadStore& store, int64_t baseline_cell_id,
                                           int64_t cell_id) {
  ASSAY_ASSIGN_OR_RETURN(const auto snapshot, store.TakeSnapshot());
  ASSAY_ASSIGN_OR_RETURN(const ComparedCell baseline, ReadCell(&store, baseline_cell_id));
  ASSAY_ASSIGN_OR_RETURN(const ComparedCell cell, ReadCell(&store, cell_id));
  ASSAY_RETURN_IF_ERROR(CheckPairable(baseline.summary, cell.summary));

  // Repeats that one arm never ran are no gaps: both are cut to what they have in common.
  const int32_t num_items = baseline.summary.benchmark.num_items;
  const UnitGrid baseline_grid(num_items, baseline.num_repeats, baseline.outcomes);
  const UnitGrid cell_grid(num_items, cell.num_repeats, cell.outcomes);
  return ComputeComparison(NamesOf(baseline.summary), baseline_grid, NamesOf(cell.summary),
                           cell_grid);
}

}  // namespace assay::coordinator
