// assay results: the table of a sweep, finished or not.
#include "base/exit_codes.h"
#include "base/status.h"
#include "cli/commands.h"
#include "cli/output/text.h"
#include "cli/results_table.h"

namespace assay::cli {
namespace {

struct ResultsOptions {
  std::string sweep;
  std::string by = "level";
  std::string format = "table";
};

// Bootstraps of a large sweep take their time.
constexpr absl::Duration kTimeout = absl::Minutes(5);

void PrintJsonArray(const v1::GetResultsResponse& results, const std::string& by) {
  Print("[");
  for (int i = 0; i < results.rows_size(); ++i) {
    Print(i == 0 ? "\n" : ",\n");
    Print(ResultJson(results.rows(i), by));
  }
  Print("\n]\n");
}

absl::StatusOr<int> Results(const Session& session, const ResultsOptions& options) {
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  const std::string by = options.by == "none" ? "" : options.by;
  v1::GetResultsRequest request;
  request.set_sweep_id(options.sweep);
  request.set_by(by);
  const auto results = client->Call(
      client->results(), &v1::ResultsService::StubInterface::GetResults, request, kTimeout);
  if (!results.ok()) return WithRemedy(results.status(), "`assay sweep ls` lists the sweeps");
  if (session.json) {
    for (const v1::ResultRow& row : results->rows()) PrintLine(ResultJson(row, by));
    return kExitOk;
  }
  switch (ParseFormat(options.format)) {
    case Format::kJson:
      PrintJsonArray(*results, by);
      break;
    case Format::kCsv:
      Print(ResultsRecords(*results, by).Csv());
      break;
    case Format::kMarkdown:
      Print(ResultsTable(*results, by).Markdown());
      break;
    case Format::kTable:
      PrintTable(ResultsTable(*results, by));
      break;
  }
  if (const std::string note = RerollNote(*results); !note.empty()) Say("{}", SanitizeLine(note));
  if (!results->complete()) {
    Say("{} is not complete: these are the samples so far", SanitizeLine(results->sweep_name()));
  }
  return kExitOk;
}

}  // namespace

void AddResultsCommand(CLI::App& app, Session* session) {
  CLI::App* command =
      app.add_subcommand("results", "The table of a sweep, with intervals and labels");
  command->footer(
      "Accuracy with its 95% interval, the drop against bf16 on the same items and seeds (paired\n"
      "bootstrap over items), and a label when the drop's interval lies inside a class: lossless "
      "below\n"
      "1 point, fair 1 to 3, risky above 3, else undecided.\n"
      "--json prints a line per cell and group, -o json an array of them.");
  const auto options = std::make_shared<ResultsOptions>();
  command->add_option("SWEEP", options->sweep, "Id of the sweep, or the beginning of one")
      ->required()
      ->type_name("");
  command->add_option("--by", options->by, "How items are grouped")
      ->check(CLI::IsMember({"level", "subject", "length", "none"}))
      ->type_name("GROUP")
      ->capture_default_str();
  AddFormatOption(command, &options->format, {"table", "csv", "json", "md"});
  AddCoordinatorOption(command, session);
  AddJsonOption(command, session);
  SetAction(command, session, [=] { return Results(*session, *options); });
}

}  // namespace assay::cli
