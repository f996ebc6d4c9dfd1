// assay compare: the paired statistics of two cells; the verdict is the exit code.
#include <cmath>

#include "base/exit_codes.h"
#include "base/status.h"
#include "cli/commands.h"
#include "cli/output/format.h"
#include "cli/output/json.h"
#include "cli/output/text.h"
#include "cli/results_table.h"
#include "cli/sample_text.h"

namespace assay::cli {
namespace {

constexpr int kMaxFlipsShown = 10;

int ExitCodeOfLabel(const std::string& label) {
  if (label == "lossless" || label == "baseline") return kExitLossless;
  if (label == "risky") return kExitRisky;
  if (label == "fair") return kExitFair;
  return kExitUndecided;  // undecided, and partial: not enough samples to say
}

std::string CellName(const v1::ResultRow& row) {
  return fmt::format("cell {}: {} {} {} on {}", row.cell_id(), row.model(), row.method(),
                     row.bits(), row.benchmark());
}

void PrintReport(const v1::CompareCellsResponse& c) {
  const Style style = StdoutStyle();
  const auto accuracy = [](const v1::ResultRow& row) {
    return FormatInterval(row.accuracy(), row.ci_low(), row.ci_high());
  };
  Table table({{"", Align::kLeft}, {"accuracy [95%]", Align::kRight}, {"tokens", Align::kRight}});
  for (const v1::ResultRow* row : {&c.baseline(), &c.cell()}) {
    table.AddRow(
        {CellName(*row), accuracy(*row), fmt::format("{:.1f}", row->mean_output_tokens())});
  }
  PrintTable(table);
  PrintLine("");
  const std::string label = SanitizeLine(c.cell().label());
  if (c.cell().has_drop()) {
    PrintLine(fmt::format("drop        {} points on {}", DropText(c.cell()),
                          Plural(c.num_pairs(), "paired unit")));
  } else {
    PrintLine("drop        unknown: the two cells have no unit in common yet");
  }
  PrintLine(fmt::format("verdict     {}", style(ColourOfLabel(label), label)));
  PrintLine(fmt::format("flips       {} harmful, {} beneficial; {} both right, {} both wrong",
                        FormatCount(c.harmful_flips()), FormatCount(c.beneficial_flips()),
                        FormatCount(c.both_correct()), FormatCount(c.both_wrong())));
  PrintLine(fmt::format("no change   McNemar {}, permutation over items {}",
                        FormatPValue(c.cell().mcnemar_p()), FormatPValue(c.permutation_p())));
  PrintLine(fmt::format("equivalent  within 1 point {}, within 3 points {} (TOST)",
                        FormatPValue(c.tost_p_1pp()), FormatPValue(c.tost_p_3pp())));
  PrintLine(fmt::format("length      {:.2f} times the baseline's (geometric mean)",
                        std::exp(c.mean_length_log_ratio())));
  if (c.flips().empty()) return;
  google::protobuf::RepeatedPtrField<v1::SampleSummary> some;
  for (int i = 0; i < std::min(kMaxFlipsShown, c.flips_size()); ++i) *some.Add() = c.flips(i);
  PrintLine(fmt::format("\nflips ({} of {}):", some.size(),
                        FormatCount(c.harmful_flips() + c.beneficial_flips())));
  PrintTable(SampleTable(some));
}

absl::StatusOr<int> Compare(const Session& session, int64_t baseline, int64_t cell) {
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  v1::CompareCellsRequest request;
  request.set_baseline_cell_id(baseline);
  request.set_cell_id(cell);
  const auto comparison =
      client->Call(client->results(), &v1::ResultsService::StubInterface::CompareCells, request,
                   absl::Minutes(5));
  if (!comparison.ok()) {
    return WithRemedy(comparison.status(), "`assay sweep show SWEEP` lists its cells");
  }
  if (session.json) {
    PrintLine(MessageJson(*comparison));
  } else {
    PrintReport(*comparison);
    if (!comparison->flips().empty()) {
      Say("read one: assay sample diff {} {} --item {}", baseline, cell,
          SanitizeLine(comparison->flips(0).item()));
    }
  }
  return ExitCodeOfLabel(comparison->cell().label());
}

}  // namespace

void AddCompareCommand(CLI::App& app, Session* session) {
  CLI::App* command =
      app.add_subcommand("compare", "Paired statistics of two cells of one benchmark");
  command->footer("The exit code is the verdict: 0 lossless, 1 risky, 2 undecided, 3 fair.");
  const auto baseline = std::make_shared<int64_t>(0);
  const auto cell = std::make_shared<int64_t>(0);
  command->add_option("BASELINE", *baseline, "Number of the cell to compare with")
      ->required()
      ->type_name("");
  command->add_option("CELL", *cell, "Number of the cell to judge")->required()->type_name("");
  AddCoordinatorOption(command, session);
  AddJsonOption(command, session);
  SetAction(command, session, [=] { return Compare(*session, *baseline, *cell); });
}

}  // namespace assay::cli
