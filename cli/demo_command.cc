// assay demo: a whole sweep on this machine's CPU or first GPU, from nothing to its table.
//
// It starts what a cluster would have (a coordinator, a worker and its runners, as processes of
// their own on loopback), submits examples/demo.yaml (or demo-cuda.yaml), shows the progress on
// stderr, prints the table on stdout, and leaves the database. On the same --data folder it
// finishes at once from the store.
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <thread>

#include "base/clock.h"
#include "base/exit_codes.h"
#include "base/file.h"
#include "base/ids.h"
#include "base/status.h"
#include "cli/commands.h"
#include "cli/demo_processes.h"
#include "cli/interrupt.h"
#include "cli/output/format.h"
#include "cli/output/text.h"
#include "cli/progress_view.h"
#include "cli/results_table.h"
#include "cli/sweep_watch.h"
#include "cli/terminal.h"

namespace assay::cli {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kWatchEvery = absl::Milliseconds(250);
constexpr absl::Duration kStopGrace = absl::Seconds(10);

struct DemoOptions {
  std::string data;
  std::string spec;
  std::string device = "cpu";
  int num_slots = 0;
  bool keep_running = false;
};

// Ends the client's call when a process dies or Ctrl-C arrives, so that nothing waits for the dead.
class Watchdog {
 public:
  Watchdog(DemoProcesses* processes, Client* client)
      : thread_([this, processes, client] {
          while (!stop_) {
            status_ = processes->Check();
            if (status_.ok() && !WaitForInterrupt(absl::Milliseconds(50))) continue;
            client->Cancel();
            return;
          }
        }) {}

  // Ends the watch. OK, or the error of the process that died. Call once.
  absl::Status Finish() {
    stop_ = true;
    thread_.join();
    return status_;
  }

 private:
  std::atomic<bool> stop_{false};
  absl::Status status_;  // of the thread until it is joined
  std::thread thread_;
};

absl::StatusOr<std::string> FindExamples() {
  const std::vector<std::string> places = {ProgramDirectory() + "/../share/assay",
                                           std::string(ASSAY_SOURCE_DIR) + "/examples"};
  for (const std::string& place : places) {
    std::error_code ignored;
    if (fs::exists(place + "/models", ignored) && fs::exists(place + "/demo.yaml", ignored)) {
      return fs::weakly_canonical(place, ignored).string();
    }
  }
  return NotFound("the demo's models and data are neither in {} nor in {}", places[0], places[1]);
}

absl::StatusOr<std::string> PrepareDataFolder(const std::string& wanted) {
  std::string path = wanted;
  if (path.empty()) {
    const char* state = std::getenv("XDG_STATE_HOME");
    const char* home = std::getenv("HOME");
    if (state == nullptr && home == nullptr) {
      return InvalidArgument("neither XDG_STATE_HOME nor HOME is set: name a folder with --data");
    }
    const std::string root = state != nullptr && *state != '\0'
                                 ? std::string(state)
                                 : std::string(home == nullptr ? "." : home) + "/.local/state";
    path = root + "/assay/demo-" +
           absl::FormatTime("%Y%m%d-%H%M%S", RealClock::Get()->Now(), absl::LocalTimeZone());
  }
  std::error_code ignored;
  path = fs::absolute(path, ignored).lexically_normal().string();
  ASSAY_RETURN_IF_ERROR(MakeDirectories(path));
  return path;
}

// How to call a program that stands beside this one: its name when PATH finds it, else its path.
std::string HowToCall(const std::string& program) {
  const std::string here = ProgramDirectory();
  const char* path = std::getenv("PATH");
  std::string rest = path != nullptr ? path : "";
  while (!rest.empty()) {
    const size_t colon = rest.find(':');
    const std::string folder = rest.substr(0, colon);
    std::error_code error;
    if (fs::exists(folder + "/" + program, error)) {
      return fs::equivalent(folder + "/" + program, here + "/" + program, error)
                 ? program
                 : ShellQuote(here + "/" + program);
    }
    rest = colon == std::string::npos ? "" : rest.substr(colon + 1);
  }
  return ShellQuote(here + "/" + program);
}

struct Outcome {
  v1::Plan plan;
  v1::Sweep sweep;  // settled
  v1::GetResultsResponse results;
  std::optional<v1::SampleSummary> flip;  // a sample worth reading
  int64_t baseline_cell = 0;              // of that sample's model
};

// A question that the model answered and its quantized form did not: of the quantized cell that
// still answers best.
absl::Status FindFlip(Client* client, Outcome* outcome) {
  const v1::ResultRow* best = nullptr;
  for (const v1::ResultRow& row : outcome->results.rows()) {
    if (row.group() != "all" || !row.has_drop() || row.num_correct() == row.num_samples()) continue;
    if (best == nullptr || row.accuracy() > best->accuracy()) best = &row;
  }
  if (best == nullptr) return absl::OkStatus();
  for (const v1::ResultRow& row : outcome->results.rows()) {
    if (row.model() == best->model() && row.benchmark() == best->benchmark() &&
        row.label() == "baseline") {
      outcome->baseline_cell = row.cell_id();
    }
  }
  if (outcome->baseline_cell == 0) return absl::OkStatus();
  v1::CompareCellsRequest request;
  request.set_baseline_cell_id(outcome->baseline_cell);
  request.set_cell_id(best->cell_id());
  ASSAY_ASSIGN_OR_RETURN(
      const v1::CompareCellsResponse comparison,
      client->Call(client->results(), &v1::ResultsService::StubInterface::CompareCells, request));
  for (const v1::SampleSummary& flip : comparison.flips()) {
    if (flip.grade().verdict() == v1::Grade::VERDICT_CORRECT) continue;
    outcome->flip = flip;
    break;
  }
  return absl::OkStatus();
}

absl::StatusOr<Outcome> RunSweep(Client* client, const std::string& spec_path,
                                 const Session& session) {
  Outcome outcome;
  v1::SubmitSweepRequest submit;
  submit.set_request_id(RandomId("request"));
  submit.set_spec_name(fs::path(spec_path).filename().string());
  submit.set_owner("demo");
  ASSAY_ASSIGN_OR_RETURN(*submit.mutable_spec_yaml(), ReadFile(spec_path, 1 << 20));
  ASSAY_ASSIGN_OR_RETURN(
      const v1::SubmitSweepResponse submitted,
      client->Call(client->sweeps(), &v1::SweepService::StubInterface::SubmitSweep, submit,
                   absl::Minutes(5)));
  outcome.plan = submitted.plan();
  for (const std::string& warning : outcome.plan.warnings()) {
    Say("warning: {}", SanitizeLine(warning));
  }
  Say("{} of {} cells and {}{}", submitted.sweep_id(), outcome.plan.cells_size(),
      Plural(outcome.plan.num_units(), "unit"),
      outcome.plan.num_units_cached() > 0
          ? fmt::format(", {} of them stored already", FormatCount(outcome.plan.num_units_cached()))
          : "");
  {
    std::optional<SweepDisplay> display;
    display.emplace(STDERR_FILENO, client, RealClock::Get());
    ASSAY_ASSIGN_OR_RETURN(outcome.sweep,
                           FollowSweep(client, submitted.sweep_id(), kWatchEvery,
                                       [&](const v1::Sweep& sweep) { display->Update(sweep); }));
  }
  v1::GetResultsRequest request;
  request.set_sweep_id(submitted.sweep_id());
  request.set_by("level");
  ASSAY_ASSIGN_OR_RETURN(
      outcome.results,
      client->Call(client->results(), &v1::ResultsService::StubInterface::GetResults, request,
                   absl::Minutes(5)));
  ASSAY_RETURN_IF_ERROR(FindFlip(client, &outcome));
  Say("");
  if (session.json) {
    for (const v1::ResultRow& row : outcome.results.rows()) PrintLine(ResultJson(row, "level"));
  } else {
    PrintTable(ResultsTable(outcome.results, "level"));
  }
  std::fflush(stdout);
  return outcome;
}

void SayHowItWent(const Outcome& outcome, absl::Duration elapsed) {
  Say("");
  const std::string what = fmt::format(
      "{}: {}, {}, {} tokens", SanitizeLine(outcome.sweep.name()),
      Plural(outcome.sweep.cells_size(), "cell"), Plural(outcome.sweep.num_units_done(), "sample"),
      FormatShort(static_cast<double>(outcome.sweep.tokens_done())));
  if (outcome.plan.num_units_cached() == 0) {
    const double seconds = std::max(absl::ToDoubleSeconds(elapsed), 1e-3);
    Say("{} in {}: {} tokens/s from start to table", what, FormatSpan(elapsed),
        FormatShort(static_cast<double>(outcome.sweep.tokens_done()) / seconds));
  } else {
    Say("{} in {}: {} of the samples were in the store already", what, FormatSpan(elapsed),
        FormatCount(outcome.plan.num_units_cached()));
  }
  for (const v1::CellStatus& cell : outcome.sweep.cells()) {
    if (!cell.error().empty())
      Say("cell {} failed: {}", cell.cell_id(), SanitizeLine(cell.error()));
  }
}

void SayHowToLookFurther(const Outcome& outcome, const std::string& data,
                         const std::string& coordinator) {
  const std::string assay = HowToCall("assay");
  const std::string database = ShellQuote(data + "/assay.db");
  const std::string flag = coordinator.empty() ? "" : " --coordinator " + coordinator;
  Say("\nThe database stays: {}\nTo look further:\n", database);
  Say("  {} query --db {} \\\n    \"SELECT model, method_label, bits, num_samples, accuracy FROM "
      "v_cell\"",
      assay, database);
  if (coordinator.empty()) {
    Say("\nand with a coordinator on it:\n\n  {} --data {} &", HowToCall("assay-coordinator"),
        ShellQuote(data));
  }
  Say("  {} sweep show {}{}", assay, outcome.sweep.id(), flag);
  Say("  {} results {} --by level -o md{}", assay, outcome.sweep.id(), flag);
  if (!outcome.flip) return;
  const v1::SampleSummary& sample = *outcome.flip;
  Say("  {} sample ls {} --filter wrong{}", assay, outcome.sweep.id(), flag);
  Say("  {} sample show {}{}", assay, sample.sample_id(), flag);
  Say("  {} sample diff {} {} --item {}{}", assay, outcome.baseline_cell, sample.cell_id(),
      ShellQuote(SanitizeLine(sample.item())), flag);
  Say("  {} compare {} {}{}", assay, outcome.baseline_cell, sample.cell_id(), flag);
}

absl::Status ServeUntilInterrupted(DemoProcesses* processes) {
  Say("\nThe coordinator and the worker serve on {} until Ctrl-C.", processes->address());
  while (!WaitForInterrupt(absl::Milliseconds(200))) {
    const absl::Status status = processes->Check();
    if (!status.ok()) {
      processes->ShowLastLines();
      return status;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int> Demo(const Session& session, const DemoOptions& options) {
  const Clock* clock = RealClock::Get();
  const absl::Duration started = clock->Monotonic();
  const GracefulInterrupts graceful;
  const bool on_gpu = options.device == "cuda";
  if (on_gpu && options.num_slots > 0) {
    return InvalidArgument("--slots {} is of the CPU; a GPU has one runner", options.num_slots);
  }
  ASSAY_ASSIGN_OR_RETURN(const std::string examples, FindExamples());
  ASSAY_ASSIGN_OR_RETURN(const std::string data, PrepareDataFolder(options.data));
  const std::string spec =
      !options.spec.empty() ? options.spec : examples + (on_gpu ? "/demo-cuda.yaml" : "/demo.yaml");
  ASSAY_RETURN_IF_ERROR(ReadFile(spec, 1 << 20).status());  // before anything is started
  Say("data folder: {}", data);

  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  ASSAY_ASSIGN_OR_RETURN(
      const auto processes,
      DemoProcesses::Start({.data = data,
                            .examples = examples,
                            .on_gpu = on_gpu,
                            .num_slots = options.num_slots > 0 ? options.num_slots : cores}));
  ASSAY_ASSIGN_OR_RETURN(const auto client, Client::Create({.address = processes->address()}));
  Watchdog watchdog(processes.get(), client.get());
  const absl::StatusOr<Outcome> outcome = RunSweep(client.get(), spec, session);
  const absl::Status died = watchdog.Finish();
  if (!outcome.ok()) {
    if (Interrupted()) {
      Say("stopping the coordinator and the worker");
    } else if (!died.ok()) {
      processes->ShowLastLines();
    }
    processes->Stop(absl::Seconds(3), true);
    return Interrupted() || died.ok() ? outcome.status() : died;
  }
  SayHowItWent(*outcome, clock->Monotonic() - started);
  SayHowToLookFurther(*outcome, data, options.keep_running ? processes->address() : "");
  if (options.keep_running) ASSAY_RETURN_IF_ERROR(ServeUntilInterrupted(processes.get()));
  processes->Stop(kStopGrace, false);
  return outcome->sweep.state() == v1::SWEEP_STATE_DONE ? kExitOk : kExitFailure;
}

}  // namespace

void AddDemoCommand(CLI::App& app, Session* session) {
  CLI::App* command =
      app.add_subcommand("demo", "Run a whole sweep on this machine, then its table");
  command->footer(
      "Starts a coordinator and a worker on loopback, follows the sweep examples/demo.yaml, prints "
      "its\n"
      "table and stops them. The database stays: the last lines say how to look further. Without "
      "--data\n"
      "it is a new folder under $XDG_STATE_HOME/assay or ~/.local/state/assay.");
  const auto options = std::make_shared<DemoOptions>();
  command
      ->add_option("--data", options->data,
                   "Folder of database and logs; that of an earlier demo finishes from its store")
      ->type_name("DIR");
  command->add_option("--spec", options->spec, "Another sweep (default: examples/demo.yaml)")
      ->type_name("FILE");
  command
      ->add_option("--device", options->device,
                   "cpu, or cuda: the first GPU, and examples/demo-cuda.yaml")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  command
      ->add_option("--slots", options->num_slots,
                   "Runners at once on the CPU (default: one a core)")
      ->check(CLI::Range(1, 1024))
      ->type_name("N");
  command->add_flag("--keep-running", options->keep_running,
                    "Let coordinator and worker serve after the table, until Ctrl-C");
  AddJsonOption(command, session);
  SetAction(command, session, [=] { return Demo(*session, *options); });
}

}  // namespace assay::cli
