// assay db check|backup|vacuum|export: a database as a file.
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/exit_codes.h"
#include "base/status.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/output/format.h"
#include "cli/output/json.h"
#include "cli/output/text.h"
#include "cli/query_output.h"
#include "storage/stores/check_database.h"
#include "storage/stores/maintain_database.h"
#include "storage/stores/read_store.h"

namespace assay::cli {
namespace {

using storage::sqlite::QueryValue;

constexpr absl::Duration kBackupTimeout = absl::Hours(6);

void PrintJson(const nlohmann::ordered_json& json) {
  PrintLine(
      EscapeInvisible(json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)));
}

absl::StatusOr<int> Check(const Session& session, const std::string& file, bool quick) {
  ASSAY_ASSIGN_OR_RETURN(const storage::DatabaseCheck check, storage::CheckDatabase(file, quick));
  if (session.json) {
    nlohmann::ordered_json findings = nlohmann::ordered_json::array();
    for (const storage::DatabaseFinding& finding : check.findings) {
      findings.push_back({{"check", finding.check},
                          {"meaning", finding.meaning},
                          {"num_rows", finding.num_rows},
                          {"example", finding.example}});
    }
    PrintJson({{"file", file},
               {"sound", check.findings.empty()},
               {"num_checks", check.num_checks},
               {"num_samples", check.num_samples},
               {"findings", findings}});
  } else {
    for (const storage::DatabaseFinding& finding : check.findings) {
      PrintLine(fmt::format("{}: {} ({}, such as {})", finding.check, finding.meaning,
                            Plural(finding.num_rows, "row"), SanitizeLine(finding.example)));
    }
  }
  if (!check.findings.empty()) {
    return DataLoss("{}: {} of {} checks found damage; restore a backup (docs/operations.md)", file,
                    check.findings.size(), check.num_checks);
  }
  Say("{}: sound; {} checks, {} samples", SanitizeLine(file), check.num_checks,
      FormatCount(check.num_samples));
  return kExitOk;
}

absl::StatusOr<int> Backup(const Session& session, const std::string& database,
                           const std::string& target) {
  v1::BackupDatabaseResponse backup;
  if (database.empty()) {
    ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
    v1::BackupDatabaseRequest request;
    request.set_name(target);
    ASSAY_ASSIGN_OR_RETURN(
        backup, client->Call(client->fleet(), &v1::FleetService::StubInterface::BackupDatabase,
                             request, kBackupTimeout, Client::Retry::kNo));
  } else {
    if (target.empty()) return InvalidArgument("with --db, name the file that the copy goes to");
    ASSAY_ASSIGN_OR_RETURN(const int64_t num_bytes, storage::BackupDatabase(database, target, [] {
                             return !Interrupted();
                           }));
    backup.set_path(target);
    backup.set_num_bytes(num_bytes);
  }
  PrintLine(session.json ? MessageJson(backup) : SanitizeLine(backup.path()));
  Say("{}; `assay db check` says whether it is sound", FormatBytes(backup.num_bytes()));
  return kExitOk;
}

absl::StatusOr<int> Vacuum(const Session& session, const std::string& file) {
  ASSAY_ASSIGN_OR_RETURN(const storage::VacuumResult result, storage::VacuumDatabase(file));
  if (session.json) {
    PrintJson({{"file", file},
               {"bytes_before", result.bytes_before},
               {"bytes_after", result.bytes_after}});
  }
  Say("{}: {}, was {}", SanitizeLine(file), FormatBytes(result.bytes_after),
      FormatBytes(result.bytes_before));
  return kExitOk;
}

const std::vector<std::string>& ExportColumns() {
  static const std::vector<std::string> columns = {"sweep_id",
                                                   "sample_id",
                                                   "cell_id",
                                                   "model",
                                                   "method",
                                                   "bits",
                                                   "method_label",
                                                   "benchmark",
                                                   "item",
                                                   "item_index",
                                                   "repeat",
                                                   "level",
                                                   "gold",
                                                   "correct",
                                                   "extracted",
                                                   "finish_reason",
                                                   "prompt_tokens",
                                                   "completion_tokens",
                                                   "thinking_tokens",
                                                   "seed",
                                                   "queue_us",
                                                   "ttft_us",
                                                   "e2e_us",
                                                   "mean_batch_size",
                                                   "num_preemptions",
                                                   "epoch",
                                                   "worker_id",
                                                   "device",
                                                   "git_commit",
                                                   "engine_numerics_version",
                                                   "finished_time_us",
                                                   "question",
                                                   "text"};
  return columns;
}

QueryValue Correct(const std::optional<storage::GradeRecord>& grade) {
  const auto verdict = static_cast<storage::Verdict>(grade ? grade->verdict : 0);
  if (verdict == storage::Verdict::kCorrect) return int64_t{1};
  if (verdict == storage::Verdict::kNone || verdict == storage::Verdict::kGraderError) return {};
  return int64_t{0};
}

std::vector<QueryValue> ExportRow(const std::string& sweep_id,
                                  const storage::SampleDetail& sample) {
  const storage::SampleSummary& summary = sample.summary;
  const storage::SampleRecord& record = sample.record;
  return {sweep_id,
          summary.sample_id,
          summary.unit.cell_id,
          summary.model,
          summary.method.method,
          summary.method.bits,
          summary.method.label,
          summary.benchmark,
          summary.item,
          int64_t{summary.unit.item_index},
          int64_t{summary.unit.repeat},
          sample.item.level,
          sample.item.gold,
          Correct(summary.grade),
          summary.grade ? QueryValue(summary.grade->extracted) : QueryValue(),
          v1::FinishReason_Name(static_cast<v1::FinishReason>(summary.finish_reason)),
          summary.prompt_tokens,
          summary.completion_tokens,
          summary.thinking_tokens >= 0 ? QueryValue(summary.thinking_tokens) : QueryValue(),
          fmt::format("{}", record.seed),  // 64 bits: more than a double of a JSON reader holds
          record.queue_us,
          record.ttft_us,
          record.e2e_us,
          record.mean_batch_size,
          int64_t{record.num_preemptions},
          record.epoch,
          record.worker_id,
          sample.provenance.device,
          sample.provenance.git_commit,
          sample.provenance.engine_numerics_version,
          record.finished_time_us,
          sample.item.question,
          sample.text};
}

absl::StatusOr<int> Export(const std::string& database, const std::string& sweep_id,
                           const std::string& format) {
  ASSAY_ASSIGN_OR_RETURN(const auto store, storage::ReadStore::Open(database));
  absl::StatusOr<storage::SweepRecord> sweep = store->FindSweep(sweep_id);
  if (!sweep.ok()) return sweep.status();
  QueryOutput output(format == "csv" ? QueryFormat::kCsv : QueryFormat::kJsonLines);
  output.Begin(ExportColumns());
  storage::SampleQuery query;
  query.sweep_row_id = sweep->id;
  int64_t num_samples = 0;
  do {
    if (Interrupted()) return Cancelled("interrupted");
    ASSAY_ASSIGN_OR_RETURN(const storage::SamplePage page, store->ListSamples(query));
    for (const storage::SampleSummary& summary : page.samples) {
      absl::StatusOr<storage::SampleDetail> sample = store->GetSample(summary.sample_id);
      if (absl::IsNotFound(sample.status())) continue;  // put back into the queue just now
      if (!sample.ok()) return sample.status();
      output.AddRow(ExportRow(sweep->sweep_id, *sample));
      ++num_samples;
    }
    query.page_token = page.next_page_token;
  } while (!query.page_token.empty());
  output.End(/*truncated=*/false);
  Say("{} of {}", Plural(num_samples, "sample"), sweep->sweep_id);
  return kExitOk;
}

void AddCheck(CLI::App* db, Session* session) {
  CLI::App* command = db->add_subcommand("check", "Whether a database is sound");
  command->footer("Exit codes: 0 sound, 65 damaged, of another version or no Assay database.");
  const auto file = std::make_shared<std::string>();
  const auto quick = std::make_shared<bool>(false);
  command->add_option("FILE", *file, "The database; a coordinator may be using it")
      ->required()
      ->type_name("");
  command->add_flag("--quick", *quick, "Without reading every index and every text");
  AddJsonOption(command, session);
  SetAction(command, session, [=] { return Check(*session, *file, *quick); });
}

void AddBackup(CLI::App* db, Session* session) {
  CLI::App* command = db->add_subcommand("backup", "Copy the database while everything goes on");
  command->footer(
      "Without --db the coordinator makes the copy, in the folder `backups` of its data.");
  const auto target = std::make_shared<std::string>();
  const auto database = std::make_shared<std::string>();
  command
      ->add_option("TARGET", *target,
                   "Name of the copy [assay-TIME.db]; with --db the path of a new file")
      ->type_name("");
  command->add_option("--db", *database, "Copy this file, without asking a coordinator")
      ->type_name("FILE");
  AddCoordinatorOption(command, session);
  AddJsonOption(command, session);
  SetAction(command, session, [=] { return Backup(*session, *database, *target); });
}

void AddVacuum(CLI::App* db, Session* session) {
  CLI::App* command =
      db->add_subcommand("vacuum", "Compact a database that no coordinator is using");
  const auto file = std::make_shared<std::string>();
  command->add_option("FILE", *file, "The database")->required()->type_name("");
  AddJsonOption(command, session);
  SetAction(command, session, [=] { return Vacuum(*session, *file); });
}

void AddExport(CLI::App* db, Session* session) {
  CLI::App* command = db->add_subcommand("export", "A sweep's samples with their texts");
  const auto sweep = std::make_shared<std::string>();
  const auto database = std::make_shared<std::string>();
  const auto format = std::make_shared<std::string>("jsonl");
  command->add_option("SWEEP", *sweep, "Its id, or the beginning of it")->required()->type_name("");
  command->add_option("--db", *database, "The database; a coordinator may be using it")
      ->required()
      ->type_name("FILE");
  AddFormatOption(command, format.get(), {"jsonl", "csv"});
  SetAction(command, session, [=] { return Export(*database, *sweep, *format); });
}

}  // namespace

void AddDbCommands(CLI::App& app, Session* session) {
  CLI::App* db = app.add_subcommand("db", "Check, back up, compact and export a database");
  db->require_subcommand(1);
  AddCheck(db, session);
  AddBackup(db, session);
  AddVacuum(db, session);
  AddExport(db, session);
}

}  // namespace assay::cli
