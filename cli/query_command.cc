// assay query: read-only SQL, through the coordinator or on a database file.
#include <cstdio>
#include <iostream>
#include <iterator>

#include "base/exit_codes.h"
#include "base/flag_checks.h"
#include "base/status.h"
#include "cli/commands.h"
#include "cli/query_output.h"
#include "storage/sqlite/query_runner.h"

namespace assay::cli {
namespace {

using storage::sqlite::BlobValue;
using storage::sqlite::QueryLimits;
using storage::sqlite::QueryRunner;
using storage::sqlite::QuerySummary;
using storage::sqlite::QueryValue;

struct QueryOptions {
  std::string sql;
  std::string database;
  std::string format = "table";
  int64_t max_rows = 10'000;
  double timeout_s = 10;
};

QueryValue FromWire(const v1::RunQueryResponse::Value& value) {
  switch (value.kind_case()) {
    case v1::RunQueryResponse::Value::kInteger:
      return value.integer();
    case v1::RunQueryResponse::Value::kReal:
      return value.real();
    case v1::RunQueryResponse::Value::kText:
      return value.text();
    case v1::RunQueryResponse::Value::kBlob:
      return BlobValue{value.blob()};
    default:
      return std::monostate();
  }
}

absl::Status RunOnFile(const QueryOptions& options, QueryOutput* output) {
  ASSAY_ASSIGN_OR_RETURN(const auto runner, QueryRunner::Open(options.database));
  QueryLimits limits;
  limits.max_rows = options.max_rows;
  limits.timeout = absl::Seconds(options.timeout_s);
  ASSAY_ASSIGN_OR_RETURN(const QuerySummary summary,
                         runner->Run(
                             options.sql, limits,
                             [&](const std::vector<std::string>& columns) {
                               output->Begin(columns);
                               return true;
                             },
                             [&](const std::vector<QueryValue>& row) {
                               output->AddRow(row);
                               return true;
                             }));
  output->End(summary.truncated);
  return absl::OkStatus();
}

absl::Status RunOnCoordinator(const Session& session, const QueryOptions& options,
                              QueryOutput* output) {
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  v1::RunQueryRequest request;
  request.set_sql(options.sql);
  request.set_max_rows(options.max_rows);
  request.set_timeout_us(static_cast<int64_t>(options.timeout_s * 1e6));
  bool begun = false;
  bool truncated = false;
  ASSAY_RETURN_IF_ERROR(client->ReadStream<v1::RunQueryResponse>(
      absl::Seconds(options.timeout_s) + absl::Seconds(30),
      [&](grpc::ClientContext* context) { return client->results().RunQuery(context, request); },
      [&](const v1::RunQueryResponse& part) {
        if (!begun) output->Begin({part.columns().begin(), part.columns().end()});
        begun = true;
        for (const auto& row : part.rows()) {
          std::vector<QueryValue> values;
          for (const auto& value : row.values()) values.push_back(FromWire(value));
          output->AddRow(values);
        }
        truncated |= part.truncated();
        return true;
      }));
  output->End(truncated);
  return absl::OkStatus();
}

absl::StatusOr<int> Query(const Session& session, QueryOptions options) {
  if (options.sql == "-") {
    options.sql.assign(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
  }
  QueryOutput output(session.json               ? QueryFormat::kJsonLines
                     : options.format == "csv"  ? QueryFormat::kCsv
                     : options.format == "json" ? QueryFormat::kJsonArray
                                                : QueryFormat::kTable);
  ASSAY_RETURN_IF_ERROR(options.database.empty() ? RunOnCoordinator(session, options, &output)
                                                 : RunOnFile(options, &output));
  if (output.truncated()) {
    Say("more than {} rows (or the largest result): the rest was cut; --max-rows raises the limit",
        options.max_rows);
  }
  return kExitOk;
}

}  // namespace

void AddQueryCommand(CLI::App& app, Session* session) {
  CLI::App* command = app.add_subcommand("query", "Read-only SQL on the store");
  command->footer(
      "On the documented views v_sweep_cell, v_cell, v_sample, v_paired, v_difficulty, v_length,\n"
      "v_latency, v_attempt, v_provenance and v_event, and on the tables. --json prints a line\n"
      "per row, -o json an array of them.");
  const auto options = std::make_shared<QueryOptions>();
  command->add_option("SQL", options->sql, "One SELECT statement; - is stdin")
      ->required()
      ->type_name("");
  command
      ->add_option("--db", options->database,
                   "Read this database file instead of asking a coordinator")
      ->type_name("FILE");
  command->add_option("--max-rows", options->max_rows, "At most so many rows")
      ->check(Positive())
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--timeout", options->timeout_s, "At most so many seconds")
      ->check(CLI::Range(0.001, 3600.0))
      ->type_name("SECONDS")
      ->capture_default_str();
  AddFormatOption(command, &options->format, {"table", "csv", "json"});
  AddCoordinatorOption(command, session);
  AddJsonOption(command, session);
  SetAction(command, session, [=] { return Query(*session, *options); });
}

}  // namespace assay::cli
