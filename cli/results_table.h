// The table of a sweep: how GetResults becomes rows for people, and records for programs.
#pragma once

#include <string>

#include "assay/v1/results_service.pb.h"
#include "cli/output/table.h"

namespace assay::cli {

namespace v1 = ::assay::v1;

// One row per cell: accuracy per group (level 1..5 as L1..L5), overall with its 95 % interval, the
// drop against the baseline with its interval, mean output tokens, truncated %, label. Shares are
// in percent and points. `by` is what the rows are grouped by: "level", "subject", "length" or "".
Table ResultsTable(const v1::GetResultsResponse& results, const std::string& by);

// One row per cell and group with the fields of ResultJson, for CSV.
Table ResultsRecords(const v1::GetResultsResponse& results, const std::string& by);

// One row as a JSON object: cell_id, model, method, bits, benchmark, level, num_samples,
// num_correct, accuracy, ci_low, ci_high, drop, drop_ci_low, drop_ci_high (null without a
// baseline), label, mean_output_tokens, truncated (a share, as accuracy) and more. `level` is "all"
// for the whole cell; grouped by something else, a field of that name stands beside it.
std::string ResultJson(const v1::ResultRow& row, const std::string& by);

// Which cells have samples of a later attempt than their unit's first, for below the table; empty
// when none has. Where many have, the cell may be biased: crashes hit long answers more often.
std::string RerollNote(const v1::GetResultsResponse& results);

// The drop with its interval, in points: "4.6 [2.5, 6.9]"; "-" without a baseline.
std::string DropText(const v1::ResultRow& row);

}  // namespace assay::cli
