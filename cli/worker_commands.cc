// assay worker ls|drain.
#include "base/clock.h"
#include "base/exit_codes.h"
#include "base/status.h"
#include "cli/commands.h"
#include "cli/output/format.h"
#include "cli/output/json.h"
#include "cli/output/text.h"
#include "cli/progress_view.h"

namespace assay::cli {
namespace {

using FleetStub = v1::FleetService::StubInterface;

Table WorkerTable(const v1::ListWorkersResponse& workers) {
  Table table({{"worker", Align::kLeft, true},
               {"state"},
               {"slots", Align::kRight},
               {"leases", Align::kRight},
               {"units", Align::kRight},
               {"tokens/s", Align::kRight},
               {"memory", Align::kRight},
               {"samples", Align::kRight},
               {"last seen"},
               {"version"},
               {"engine"},
               {"device", Align::kLeft, true}});
  for (const v1::Worker& worker : workers.workers()) {
    const bool online = worker.state() == v1::Worker::STATE_ONLINE;
    table.AddRow({worker.worker_id(),
                  {StateName(worker.state()), online ? Colour::kGreen : Colour::kYellow},
                  fmt::format("{}", worker.slots_size()),
                  FormatCount(worker.num_leases()),
                  FormatCount(worker.num_units()),
                  FormatShort(worker.tokens_per_s()),
                  MemoryText(worker),
                  FormatCount(worker.num_samples()),
                  FormatTime(worker.last_seen_time_us()),
                  worker.version(),
                  worker.engine_numerics_version(),
                  worker.device()});
  }
  return table;
}

absl::StatusOr<int> List(const Session& session, bool quiet) {
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  ASSAY_ASSIGN_OR_RETURN(
      const v1::ListWorkersResponse workers,
      client->Call(client->fleet(), &FleetStub::ListWorkers, v1::ListWorkersRequest()));
  if (session.json) {
    for (const v1::Worker& worker : workers.workers()) PrintLine(MessageJson(worker));
  } else if (quiet) {
    for (const v1::Worker& worker : workers.workers()) PrintLine(SanitizeLine(worker.worker_id()));
  } else if (workers.workers().empty()) {
    Say("no workers: start one with `assay-worker --coordinator {} --models DIR`",
        client->address());
  } else {
    PrintTable(WorkerTable(workers));
  }
  return kExitOk;
}

absl::StatusOr<int> Drain(const Session& session, const std::vector<std::string>& ids) {
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  for (const std::string& id : ids) {
    v1::DrainWorkerRequest request;
    request.set_worker_id(id);
    const auto answer = client->Call(client->fleet(), &FleetStub::DrainWorker, request);
    if (!answer.ok()) return WithRemedy(answer.status(), "`assay worker ls` lists the workers");
    PrintLine(session.json ? MessageJson(*answer) : id);
    Say("{} finishes what it holds, takes nothing new and then stops", SanitizeLine(id));
  }
  return kExitOk;
}

}  // namespace

void AddWorkerCommands(CLI::App& app, Session* session) {
  CLI::App* worker = app.add_subcommand("worker", "The workers of the coordinator");
  worker->require_subcommand(1);

  CLI::App* list = worker->add_subcommand("ls", "List workers");
  AddCoordinatorOption(list, session);
  AddJsonOption(list, session);
  const auto quiet = std::make_shared<bool>(false);
  list->add_flag("-q,--quiet", *quiet, "Only ids");
  SetAction(list, session, [=] { return List(*session, *quiet); });

  CLI::App* drain = worker->add_subcommand(
      "drain", "Let workers finish what they hold, take nothing new, and stop");
  AddCoordinatorOption(drain, session);
  AddJsonOption(drain, session);
  const auto ids = std::make_shared<std::vector<std::string>>();
  drain->add_option("WORKER", *ids, "Ids of the workers")->required()->type_name("");
  SetAction(drain, session, [=] { return Drain(*session, *ids); });
}

}  // namespace assay::cli
