// assay sweep plan|submit|ls|show|watch|cancel|pause|resume|retry.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <map>

#include "base/exit_codes.h"
#include "base/file.h"
#include "base/flag_checks.h"
#include "base/ids.h"
#include "base/status.h"
#include "cli/commands.h"
#include "cli/output/format.h"
#include "cli/output/json.h"
#include "cli/output/text.h"
#include "cli/progress_view.h"
#include "cli/sweep_watch.h"
#include "cli/terminal.h"

namespace assay::cli {
namespace {

using SweepStub = v1::SweepService::StubInterface;

constexpr int64_t kMaxSpecBytes = 1 << 20;
// Planning hashes the models' files, which takes minutes for a 70B checkpoint on a slow disk.
constexpr absl::Duration kPlanTimeout = absl::Minutes(30);
constexpr char kFindSweeps[] = "`assay sweep ls` lists the sweeps";

struct Spec {
  std::string yaml;
  std::string name;  // of the file, for the coordinator's messages
};

absl::StatusOr<Spec> ReadSpec(const std::string& path) {
  if (path == "-") {
    std::string yaml((std::istreambuf_iterator<char>(std::cin)), std::istreambuf_iterator<char>());
    return Spec{std::move(yaml), "stdin"};
  }
  ASSAY_ASSIGN_OR_RETURN(std::string yaml, ReadFile(path, kMaxSpecBytes));
  return Spec{std::move(yaml), std::filesystem::path(path).filename().string()};
}

std::string UserName() {
  for (const char* name : {"USER", "LOGNAME"}) {
    const char* value = std::getenv(name);
    if (value != nullptr && *value != '\0') return value;
  }
  return fmt::format("uid-{}", ::getuid());
}

// "9 cells, 4,500 units (500 stored already), 6 quantize jobs (2 stored), ~1.02M tokens, ~1m 10s".
std::string PlanSummary(const v1::Plan& plan) {
  std::string text = Plural(plan.cells_size(), "cell");
  // A sweep has one device, and so its cells one arithmetic; an older coordinator does not say.
  if (plan.cells_size() > 0 && !plan.cells(0).engine_numerics_version().empty()) {
    text += " on " + SanitizeLine(plan.cells(0).engine_numerics_version());
  }
  text += ", " + Plural(plan.num_units(), "unit");
  if (plan.num_units_cached() > 0) {
    text += fmt::format(" ({} stored already)", FormatCount(plan.num_units_cached()));
  }
  text += fmt::format(", {}", Plural(plan.num_quantize_jobs(), "quantize job"));
  if (plan.num_quantize_jobs_cached() > 0) {
    text += fmt::format(" ({} stored already)", plan.num_quantize_jobs_cached());
  }
  if (plan.num_units_cached() == plan.num_units()) return text + ", nothing left to run";
  text += fmt::format(", ~{} tokens", FormatShort(static_cast<double>(plan.expected_tokens())));
  text += plan.expected_duration_us() > 0
              ? ", ~" + FormatSpan(absl::Microseconds(plan.expected_duration_us()))
              : ", time unknown until a worker has run this";
  return text;
}

void SayWarnings(const v1::Plan& plan) {
  for (const std::string& warning : plan.warnings()) Say("warning: {}", SanitizeLine(warning));
}

Table PlanTable(const v1::Plan& plan) {
  Table table({{"model", Align::kLeft, true},
               {"method", Align::kLeft, true},
               {"bits"},
               {"benchmark", Align::kLeft, true},
               {"items", Align::kRight},
               {"repeats", Align::kRight},
               {"units", Align::kRight},
               {"stored", Align::kRight},
               {"artifact"},
               {"tokens", Align::kRight}});
  for (const v1::PlannedCell& cell : plan.cells()) {
    const int64_t units = int64_t{cell.num_items()} * cell.num_repeats();
    const char* artifact = cell.artifact_key().empty() ? "-"
                           : cell.artifact_cached()    ? "stored"
                                                       : "to make";
    table.AddRow({cell.model(), MethodLabel(cell.method()), cell.method().bits(), cell.benchmark(),
                  fmt::format("{}", cell.num_items()), fmt::format("{}", cell.num_repeats()),
                  FormatCount(units), FormatCount(cell.num_units_cached()), artifact,
                  "~" + FormatShort(static_cast<double>(cell.expected_tokens()))});
  }
  return table;
}

absl::StatusOr<int> Plan(const Session& session, const std::string& path,
                         const std::string& format) {
  ASSAY_ASSIGN_OR_RETURN(const Spec spec, ReadSpec(path));
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  v1::PlanSweepRequest request;
  request.set_spec_yaml(spec.yaml);
  request.set_spec_name(spec.name);
  ASSAY_ASSIGN_OR_RETURN(
      const v1::PlanSweepResponse response,
      client->Call(client->sweeps(), &SweepStub::PlanSweep, request, kPlanTimeout));
  const v1::Plan& plan = response.plan();
  SayWarnings(plan);
  if (session.json || format == "json") {
    PrintLine(MessageJson(plan));
  } else if (format == "yaml") {
    Print(SanitizeText(plan.resolved_yaml()));
  } else {
    PrintTable(PlanTable(plan));
    PrintLine(fmt::format("\n{}: {}", SanitizeLine(plan.name()), PlanSummary(plan)));
  }
  return kExitOk;
}

struct SubmitOptions {
  std::string spec;
  std::string owner;
  bool wait = false;
};

absl::StatusOr<int> Submit(const Session& session, const SubmitOptions& options) {
  ASSAY_ASSIGN_OR_RETURN(const Spec spec, ReadSpec(options.spec));
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  v1::SubmitSweepRequest request;
  request.set_request_id(RandomId("request"));
  request.set_spec_yaml(spec.yaml);
  request.set_spec_name(spec.name);
  request.set_owner(options.owner);
  ASSAY_ASSIGN_OR_RETURN(
      const v1::SubmitSweepResponse response,
      client->Call(client->sweeps(), &SweepStub::SubmitSweep, request, kPlanTimeout));
  SayWarnings(response.plan());
  Say("{}: {}", SanitizeLine(response.plan().name()), PlanSummary(response.plan()));
  PrintLine(session.json ? MessageJson(response) : response.sweep_id());
  std::fflush(stdout);  // before a long wait: a script may go on with the id
  if (!options.wait) return kExitOk;
  return WatchSweep(client.get(), response.sweep_id(), STDERR_FILENO, false);
}

Table SweepTable(const std::vector<v1::Sweep>& sweeps) {
  Table table({{"sweep"},
               {"name", Align::kLeft, true},
               {"owner", Align::kLeft, true},
               {"state"},
               {"done", Align::kRight},
               {"units", Align::kRight},
               {"tokens", Align::kRight},
               {"ETA", Align::kRight},
               {"created"}});
  for (const v1::Sweep& sweep : sweeps) {
    const bool running = sweep.state() == v1::SWEEP_STATE_ACTIVE;
    table.AddRow(
        {sweep.id(), sweep.name(), sweep.owner(), StateName(sweep.state()),
         FormatPercent(FractionDone(sweep)) + "%",
         fmt::format("{}/{}", sweep.num_units_done(), sweep.num_units()),
         FormatShort(static_cast<double>(sweep.tokens_done())),
         running && sweep.eta_us() > 0 ? FormatSpan(absl::Microseconds(sweep.eta_us())) : "-",
         FormatTime(sweep.created_time_us())});
  }
  return table;
}

absl::StatusOr<int> List(const Session& session, bool quiet, int limit) {
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  std::vector<v1::Sweep> sweeps;
  v1::ListSweepsRequest request;
  do {
    ASSAY_ASSIGN_OR_RETURN(const v1::ListSweepsResponse page,
                           client->Call(client->sweeps(), &SweepStub::ListSweeps, request));
    sweeps.insert(sweeps.end(), page.sweeps().begin(), page.sweeps().end());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty() &&
           (limit == 0 || static_cast<int>(sweeps.size()) < limit));
  if (limit > 0 && static_cast<int>(sweeps.size()) > limit) {
    sweeps.resize(static_cast<size_t>(limit));
  }
  if (session.json) {
    for (const v1::Sweep& sweep : sweeps) PrintLine(MessageJson(sweep));
  } else if (quiet) {
    for (const v1::Sweep& sweep : sweeps) PrintLine(sweep.id());
  } else if (sweeps.empty()) {
    Say("no sweeps yet: `assay sweep submit SPEC.yaml` starts one");
  } else {
    PrintTable(SweepTable(sweeps));
  }
  return kExitOk;
}

void PrintSweep(const v1::Sweep& sweep) {
  const auto fact = [](const char* name, const std::string& value) {
    PrintLine(PadRight(name, 15) + SanitizeLine(value));
  };
  fact("sweep", sweep.id());
  fact("name", sweep.name());
  fact("owner", sweep.owner());
  fact("priority", fmt::format("{}", sweep.priority()));
  fact("created", FormatTime(sweep.created_time_us()));
  fact("finished", FormatTime(sweep.finished_time_us()));
  fact("progress", SweepProgressLine(sweep));
  fact("granted again", Plural(sweep.num_rerolls(), "unit"));
  std::map<std::string, int> waiting;  // cells by reason
  for (const v1::CellStatus& cell : sweep.cells()) {
    if (!cell.waiting_reason().empty()) ++waiting[cell.waiting_reason()];
  }
  for (const auto& [reason, num_cells] : waiting) {
    fact("waiting", fmt::format("{}: {}", Plural(num_cells, "cell"), reason));
  }
  PrintLine("");
  Table cells({{"cell", Align::kRight},
               {"model", Align::kLeft, true},
               {"method", Align::kLeft, true},
               {"bits"},
               {"benchmark", Align::kLeft, true},
               {"state"},
               {"done", Align::kRight},
               {"units", Align::kRight},
               {"accuracy", Align::kRight},
               {"tokens", Align::kRight},
               {"error", Align::kLeft, true}});
  for (const v1::CellStatus& cell : sweep.cells()) {
    const double share = cell.num_units_done() > 0 ? static_cast<double>(cell.num_correct()) /
                                                         static_cast<double>(cell.num_units_done())
                                                   : 0;
    cells.AddRow({fmt::format("{}", cell.cell_id()), cell.model(), MethodLabel(cell.method()),
                  cell.method().bits(), cell.benchmark(), StateName(cell.state()),
                  FormatCount(cell.num_units_done()), FormatCount(cell.num_units()),
                  cell.num_units_done() > 0 ? FormatPercent(share) : "-",
                  FormatShort(static_cast<double>(cell.tokens_done())), cell.error()});
  }
  PrintTable(cells);
}

absl::StatusOr<int> Show(const Session& session, const std::string& id, const std::string& format) {
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  v1::GetSweepRequest request;
  request.set_sweep_id(id);
  const auto response = client->Call(client->sweeps(), &SweepStub::GetSweep, request);
  if (!response.ok()) return WithRemedy(response.status(), kFindSweeps);
  if (session.json || format == "json") {
    PrintLine(MessageJson(response->sweep()));
  } else if (format == "yaml") {
    Print(SanitizeText(response->sweep().resolved_yaml()));
  } else {
    PrintSweep(response->sweep());
  }
  return kExitOk;
}

absl::StatusOr<int> Watch(const Session& session, const std::string& id) {
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  const auto exit_code = WatchSweep(client.get(), id, STDOUT_FILENO, session.json);
  if (!exit_code.ok()) return WithRemedy(exit_code.status(), kFindSweeps);
  return *exit_code;
}

// The verbs that change a sweep and answer with its state.
template <typename Request, typename Response>
absl::StatusOr<Response> Change(const Session& session, const std::string& id,
                                grpc::Status (SweepStub::*method)(grpc::ClientContext*,
                                                                  const Request&, Response*)) {
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  Request request;
  request.set_request_id(RandomId("request"));
  request.set_sweep_id(id);
  absl::StatusOr<Response> response = client->Call(client->sweeps(), method, request);
  if (!response.ok()) return WithRemedy(response.status(), kFindSweeps);
  return response;
}

template <typename Request, typename Response>
std::function<absl::StatusOr<int>()> ChangeAction(
    Session* session, const std::shared_ptr<std::string>& id,
    grpc::Status (SweepStub::*method)(grpc::ClientContext*, const Request&, Response*)) {
  return [session, id, method]() -> absl::StatusOr<int> {
    ASSAY_ASSIGN_OR_RETURN(const Response response, (Change(*session, *id, method)));
    const v1::Sweep& sweep = response.sweep();
    PrintLine(session->json ? MessageJson(response) : sweep.id());
    Say("{} is {}: {} of {} units have their sample", SanitizeLine(sweep.name()),
        StateName(sweep.state()), FormatCount(sweep.num_units_done()),
        FormatCount(sweep.num_units()));
    return kExitOk;
  };
}

absl::StatusOr<int> Retry(const Session& session, const std::string& id) {
  ASSAY_ASSIGN_OR_RETURN(const v1::RetrySweepResponse response,
                         Change(session, id, &SweepStub::RetrySweep));
  PrintLine(session.json ? MessageJson(response) : response.sweep().id());
  Say("{} and {} are in the queue again", Plural(response.num_units_requeued(), "unit"),
      Plural(response.num_jobs_requeued(), "job"));
  return kExitOk;
}

CLI::App* AddVerb(CLI::App* sweep, Session* session, const std::string& verb,
                  const std::string& description) {
  CLI::App* command = sweep->add_subcommand(verb, description);
  AddCoordinatorOption(command, session);
  AddJsonOption(command, session);
  return command;
}

std::shared_ptr<std::string> AddSweepId(CLI::App* command) {
  auto id = std::make_shared<std::string>();
  command->add_option("SWEEP", *id, "Id of the sweep, or the beginning of one")
      ->required()
      ->type_name("");
  return id;
}

CLI::Option* AddSpecPath(CLI::App* command, std::string* path) {
  return command->add_option("SPEC", *path, "YAML file of the sweep; - is stdin")
      ->required()
      ->type_name("");
}

}  // namespace

void AddSweepCommands(CLI::App& app, Session* session) {
  CLI::App* sweep = app.add_subcommand("sweep", "Plan, start and follow sweeps");
  sweep->require_subcommand(1);

  CLI::App* plan = AddVerb(sweep, session, "plan", "Say what a spec would run, and change nothing");
  plan->footer("Cells, units, what is stored already, expected tokens and time.");
  const auto plan_spec = std::make_shared<std::string>();
  const auto plan_format = std::make_shared<std::string>("table");
  AddSpecPath(plan, plan_spec.get());
  AddFormatOption(plan, plan_format.get(), {"table", "json", "yaml"});
  SetAction(plan, session, [=] { return Plan(*session, *plan_spec, *plan_format); });

  CLI::App* submit = AddVerb(sweep, session, "submit", "Start a sweep; prints its id");
  const auto submit_options = std::make_shared<SubmitOptions>();
  submit_options->owner = UserName();
  AddSpecPath(submit, &submit_options->spec);
  submit->add_option("--owner", submit_options->owner, "Who runs it")->type_name("NAME");
  submit->add_flag("--wait", submit_options->wait,
                   "Wait until it settles: exit code 0 when every unit has its sample, else 1");
  SetAction(submit, session, [=] { return Submit(*session, *submit_options); });

  CLI::App* list = AddVerb(sweep, session, "ls", "List sweeps, newest first");
  const auto quiet = std::make_shared<bool>(false);
  const auto limit = std::make_shared<int>(100);
  list->add_flag("-q,--quiet", *quiet, "Only ids");
  list->add_option("-n,--limit", *limit, "At most so many; 0 is all")
      ->check(NotNegative())
      ->type_name("N")
      ->capture_default_str();
  SetAction(list, session, [=] { return List(*session, *quiet, *limit); });

  CLI::App* show = AddVerb(sweep, session, "show", "Show a sweep and its cells");
  const auto show_id = AddSweepId(show);
  const auto show_format = std::make_shared<std::string>("table");
  AddFormatOption(show, show_format.get(), {"table", "json", "yaml"});
  SetAction(show, session, [=] { return Show(*session, *show_id, *show_format); });

  CLI::App* watch = AddVerb(sweep, session, "watch", "Follow a sweep until it settles");
  watch->footer(
      "Redrawn in place on a terminal, lines with the time in a pipe. Exit code 0 when every unit "
      "has\n"
      "its sample, 1 when some failed or the sweep was cancelled.");
  const auto watch_id = AddSweepId(watch);
  SetAction(watch, session, [=] { return Watch(*session, *watch_id); });

  CLI::App* cancel = AddVerb(sweep, session, "cancel", "Stop a sweep for good; its samples stay");
  SetAction(cancel, session, ChangeAction(session, AddSweepId(cancel), &SweepStub::CancelSweep));
  CLI::App* pause = AddVerb(sweep, session, "pause", "Hold a sweep: nothing new is started");
  SetAction(pause, session, ChangeAction(session, AddSweepId(pause), &SweepStub::PauseSweep));
  CLI::App* resume = AddVerb(sweep, session, "resume", "Go on with a paused sweep");
  SetAction(resume, session, ChangeAction(session, AddSweepId(resume), &SweepStub::ResumeSweep));

  CLI::App* retry = AddVerb(sweep, session, "retry", "Run failed jobs and quarantined units again");
  const auto retry_id = AddSweepId(retry);
  SetAction(retry, session, [=] { return Retry(*session, *retry_id); });
}

}  // namespace assay::cli
