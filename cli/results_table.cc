#include "cli/results_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "cli/output/format.h"
#include "cli/output/json.h"

namespace assay::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kAll[] = "all";

struct CellRows {
  const v1::ResultRow* all = nullptr;
  std::map<std::string, const v1::ResultRow*> by_group;  // key: the column's title
};

// Cells in plan order; the groups in the order in which they first appear, numbers in theirs.
struct Grouped {
  std::vector<CellRows> cells;
  std::vector<std::string> groups;
};

bool IsNumber(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

// The column of a group. The quarters by length have bounds of their own for every model ("q1
// 27-58"): in the table they share a column.
std::string ColumnOf(const std::string& group, const std::string& by) {
  if (by == "length") return group.substr(0, group.find(' '));
  return group;
}

Grouped GroupRows(const v1::GetResultsResponse& results, const std::string& by) {
  Grouped grouped;
  std::map<int64_t, size_t> index_of_cell;
  for (const v1::ResultRow& row : results.rows()) {
    const auto [entry, is_new] = index_of_cell.try_emplace(row.cell_id(), grouped.cells.size());
    if (is_new) grouped.cells.emplace_back();
    CellRows& cell = grouped.cells[entry->second];
    if (row.group() == kAll) {
      cell.all = &row;
      continue;
    }
    const std::string column = ColumnOf(row.group(), by);
    cell.by_group[column] = &row;
    if (std::find(grouped.groups.begin(), grouped.groups.end(), column) == grouped.groups.end()) {
      grouped.groups.push_back(column);
    }
  }
  if (std::all_of(grouped.groups.begin(), grouped.groups.end(), IsNumber)) {
    std::sort(grouped.groups.begin(), grouped.groups.end(),
              [](const std::string& a, const std::string& b) {
                return std::make_pair(a.size(), a) < std::make_pair(b.size(), b);
              });
  }
  return grouped;
}

double TruncatedShare(const v1::ResultRow& row) {
  return row.num_samples() > 0
             ? static_cast<double>(row.num_truncated()) / static_cast<double>(row.num_samples())
             : 0;
}

bool HasSeveralBenchmarks(const v1::GetResultsResponse& results) {
  return std::any_of(results.rows().begin(), results.rows().end(), [&](const v1::ResultRow& row) {
    return row.benchmark() != results.rows(0).benchmark();
  });
}

Json RowJson(const v1::ResultRow& row, const std::string& by) {
  const auto with_drop = [&](double value) { return row.has_drop() ? Json(value) : Json(nullptr); };
  Json json = {{"cell_id", row.cell_id()},     {"model", row.model()},
               {"method", row.method()},       {"bits", row.bits()},
               {"benchmark", row.benchmark()}, {"level", by == "level" ? row.group() : kAll}};
  if (!by.empty() && by != "level") json[by] = row.group();
  json["num_samples"] = row.num_samples();
  json["num_correct"] = row.num_correct();
  json["accuracy"] = row.accuracy();
  json["ci_low"] = row.ci_low();
  json["ci_high"] = row.ci_high();
  json["drop"] = with_drop(row.drop());
  json["drop_ci_low"] = with_drop(row.drop_ci_low());
  json["drop_ci_high"] = with_drop(row.drop_ci_high());
  json["label"] = row.label();
  json["mean_output_tokens"] = row.mean_output_tokens();
  json["truncated"] = TruncatedShare(row);
  json["num_truncated"] = row.num_truncated();
  json["num_ungradable"] = row.num_ungradable();
  json["num_units"] = row.num_units();
  json["num_stored"] = row.num_stored();
  json["num_rerolled"] = row.num_rerolled();
  json["mcnemar_p"] = row.mcnemar_p() < 0 ? Json(nullptr) : Json(row.mcnemar_p());
  return json;
}

std::string CsvValue(const Json& value) {
  if (value.is_null()) return "";
  return value.is_string() ? value.get<std::string>() : value.dump();
}

}  // namespace

std::string DropText(const v1::ResultRow& row) {
  if (!row.has_drop()) return "-";
  return FormatInterval(row.drop(), row.drop_ci_low(), row.drop_ci_high());
}

std::string RerollNote(const v1::GetResultsResponse& results) {
  constexpr double kSuspicious = 0.01;
  int num_cells = 0;
  int num_rerolled = 0;
  double worst_rate = 0;
  const v1::ResultRow* worst = nullptr;
  for (const v1::ResultRow& row : results.rows()) {
    if (row.group() != kAll) continue;
    ++num_cells;
    if (row.num_rerolled() == 0 || row.num_stored() == 0) continue;
    ++num_rerolled;
    const double rate =
        static_cast<double>(row.num_rerolled()) / static_cast<double>(row.num_stored());
    if (rate <= worst_rate) continue;
    worst_rate = rate;
    worst = &row;
  }
  if (worst == nullptr) return {};
  return fmt::format(
      "{} of {} cells have re-rolled samples, from a later attempt than their unit's first; the "
      "most "
      "has {} {} on {}: {} of {} ({}%){}",
      num_rerolled, num_cells, worst->method(), worst->bits(), worst->benchmark(),
      worst->num_rerolled(), worst->num_stored(), FormatPercent(worst_rate),
      worst_rate > kSuspicious
          ? "; above 1% a cell may lean to short answers, because crashes hit long ones more often"
          : "");
}

Table ResultsTable(const v1::GetResultsResponse& results, const std::string& by) {
  const Grouped grouped = GroupRows(results, by);
  const bool several_benchmarks = HasSeveralBenchmarks(results);
  std::vector<Column> columns = {{"model"}, {"method"}, {"bits"}};
  if (several_benchmarks) columns.push_back({"benchmark"});
  for (const std::string& group : grouped.groups) {
    columns.push_back({by == "level" && IsNumber(group) ? "L" + group : group, Align::kRight});
  }
  columns.insert(columns.end(), {{"overall [95%]", Align::kRight},
                                 {"drop [95%]", Align::kRight},
                                 {"tokens", Align::kRight},
                                 {"trunc%", Align::kRight},
                                 {"label"}});
  Table table(std::move(columns));
  for (const CellRows& cell : grouped.cells) {
    if (cell.all == nullptr) continue;
    const v1::ResultRow& all = *cell.all;
    std::vector<Cell> row = {all.model(), all.method(), all.bits()};
    if (several_benchmarks) row.emplace_back(all.benchmark());
    for (const std::string& group : grouped.groups) {
      const auto found = cell.by_group.find(group);
      const bool known = found != cell.by_group.end() && found->second->num_samples() > 0;
      row.emplace_back(known ? FormatPercent(found->second->accuracy()) : "-");
    }
    const bool some = all.num_samples() > 0;
    row.emplace_back(some ? FormatInterval(all.accuracy(), all.ci_low(), all.ci_high()) : "-");
    row.emplace_back(DropText(all));
    row.emplace_back(some ? fmt::format("{:.1f}", all.mean_output_tokens()) : "-");
    row.emplace_back(some ? FormatPercent(TruncatedShare(all)) : "-");
    row.emplace_back(all.label(), ColourOfLabel(all.label()));
    table.AddRow(std::move(row));
  }
  return table;
}

Table ResultsRecords(const v1::GetResultsResponse& results, const std::string& by) {
  std::vector<Column> columns;
  const Json header = RowJson(v1::ResultRow(), by);
  for (const auto& item : header.items()) columns.push_back({item.key()});
  Table table(std::move(columns));
  for (const v1::ResultRow& row : results.rows()) {
    std::vector<Cell> cells;
    const Json record = RowJson(row, by);
    for (const auto& item : record.items()) cells.emplace_back(CsvValue(item.value()));
    table.AddRow(std::move(cells));
  }
  return table;
}

std::string ResultJson(const v1::ResultRow& row, const std::string& by) {
  return EscapeInvisible(RowJson(row, by).dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace assay::cli
