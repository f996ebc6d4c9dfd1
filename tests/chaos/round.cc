#include "tests/chaos/round.h"

#include <absl/time/clock.h>
#include <signal.h>

#include <filesystem>

#include "base/file.h"
#include "base/status.h"
#include "storage/sqlite/connection.h"
#include "tests/chaos/processes.h"
#include "tests/testing/paths.h"

namespace assay::chaos {
namespace {

namespace fs = std::filesystem;

// Without a new sample for so long the system is taken to hang: far beyond any timeout in it.
constexpr absl::Duration kPatience = absl::Minutes(2);
// A worker that has units reports some sooner.
constexpr absl::Duration kReportPatience = absl::Seconds(10);
constexpr absl::Duration kPoll = absl::Milliseconds(20);
constexpr int kSweepDone = 4;  // sweep.state, storage/schema
constexpr int kSweepPaused = 2;

// These wait for what they cause, with everything else as it should be.
bool StandsAlone(FaultKind kind) {
  return kind == FaultKind::kKillCoordinatorUnacknowledged || kind == FaultKind::kCutLink ||
         kind == FaultKind::kLyingWorker;
}

}  // namespace

absl::StatusOr<RoundReport> Round::Run(std::deque<Fault>* plan) {
  const absl::Time start = absl::Now();
  ASSAY_ASSIGN_OR_RETURN(system_, ChaosSystem::Start(directory_, means_));
  ASSAY_ASSIGN_OR_RETURN(sweep_, system_->Submit(kSpec));
  const absl::Status disturbed = Disturb(plan);
  if (!disturbed.ok()) Problem(Message(disturbed));
  if (report_.problems.empty()) CheckWhatIsStored();
  KeepWhatIsStored();
  report_.wall = absl::Now() - start;
  system_.reset();
  return std::move(report_);
}

absl::Status Round::Disturb(std::deque<Fault>* plan) {
  while (!plan->empty() && !Settled()) {
    const Fault& fault = plan->front();
    if (!fault.overlaps || StandsAlone(fault.kind)) {
      if (!HealAll()) return absl::OkStatus();
      const int64_t before = system_->NumSamples();
      if (!StepUntil([&] { return system_->NumSamples() > before || Settled(); }, kPatience)) {
        return DeadlineExceeded("no sample for {} after the last fault\n{}",
                                absl::FormatDuration(kPatience), system_->Logs());
      }
    }
    const absl::Time strike = absl::Now() + fault.pause;
    StepUntil([&] { return absl::Now() >= strike; }, kPatience);
    if (Settled()) break;
    // A runner that is just being started, say: a moment later there is one.
    bool struck = false;
    StepUntil(
        [&] {
          struck = Inject(fault);
          return struck || Settled();
        },
        kPatience);
    if (!report_.problems.empty()) return absl::OkStatus();
    if (!struck && Settled()) break;
    if (!struck) return DeadlineExceeded("nothing to strike for: {}", NameOf(fault.kind));
    plan->pop_front();
  }
  if (!HealAll()) return absl::OkStatus();
  int64_t samples = -1;
  while (!Settled()) {
    const int64_t before = samples;
    const bool moved = StepUntil(
        [&] {
          samples = std::max(samples, system_->NumSamples());
          return samples > before || Settled();
        },
        kPatience);
    if (!report_.problems.empty()) return absl::OkStatus();
    if (!moved) {
      return DeadlineExceeded("{} samples of {}, and no other for {} with all faults healed\n{}",
                              samples, kNumUnits, absl::FormatDuration(kPatience), system_->Logs());
    }
  }
  // All programs up, or they cannot be stopped.
  StepUntil(
      [&] {
        bool up = system_->coordinator().process != nullptr;
        for (int i = 0; i < kNumWorkers; ++i) up &= system_->worker(i).process != nullptr;
        return up;
      },
      kPatience);
  return absl::OkStatus();
}

// Stepping ----------------------------------------------------------------------------------------

void Round::Problem(const std::string& what) {
  say_("PROBLEM: " + what);
  report_.problems.push_back(what);
}

bool Round::Step() {
  if (const absl::Status supervised = system_->Supervise(); !supervised.ok()) {
    Problem(Message(supervised));
    return false;
  }
  const absl::Time now = absl::Now();
  for (auto it = active_.begin(); it != active_.end();) {
    if (it->until > now) {
      ++it;
      continue;
    }
    it->heal();
    say_("  healed: " + NameOf(it->kind));
    it = active_.erase(it);
  }
  return report_.problems.empty();
}

bool Round::StepUntil(const std::function<bool()>& condition, absl::Duration patience) {
  const absl::Time deadline = absl::Now() + patience;
  while (Step()) {
    if (condition()) return true;
    if (absl::Now() > deadline) return false;
    absl::SleepFor(kPoll);
  }
  return false;
}

bool Round::HealAll() {
  return StepUntil([this] { return active_.empty(); }, absl::InfiniteDuration());
}

bool Round::Settled() const {
  return system_->QueryInteger(
             fmt::format("SELECT state FROM sweep WHERE public_id = '{}'", sweep_)) > kSweepPaused;
}

void Round::Hold(const Fault& fault, std::function<void()> heal) {
  active_.push_back({fault.kind, absl::Now() + fault.hold, std::move(heal)});
}

// Faults ------------------------------------------------------------------------------------------

bool Round::Inject(const Fault& fault) {
  ChaosSystem::Program& coordinator = system_->coordinator();
  const int index = static_cast<int>(fault.choice % kNumWorkers);
  ChaosSystem::Program& worker = system_->worker(index);
  const auto struck = [&]() -> bool {
    switch (fault.kind) {
      case FaultKind::kKillCoordinator:
        return system_->Kill(&coordinator, fault.hold / 4);
      case FaultKind::kKillCoordinatorUnacknowledged:
        return KillUnacknowledged();
      case FaultKind::kKillWorker:
        return system_->Kill(&worker, fault.hold);
      case FaultKind::kKillRunner:
        return KillChild(fault, "assay-runner");
      case FaultKind::kKillGrader:
        return KillChild(fault, "assay-grader");
      case FaultKind::kStopCoordinator:
        return StopProgram(fault, &coordinator);
      case FaultKind::kStopWorker:
        return StopProgram(fault, &worker);
      case FaultKind::kStopRunner:
        return StopChild(fault, "assay-runner");
      case FaultKind::kStopGrader:
        return StopChild(fault, "assay-grader");
      case FaultKind::kBlackholeLink:
        return BlackholeLink(fault);
      case FaultKind::kSlowLink:
        return SlowLink(fault);
      case FaultKind::kCutLink:
        return CutLink(fault);
      case FaultKind::kBlackholeNetwork:
      case FaultKind::kUnplugNetwork:
      case FaultKind::kDegradeNetwork:
        return DisturbNetwork(fault);
      case FaultKind::kFullStoreDisk:
        return FillDisk(fault, system_->store_disk(), &coordinator);
      case FaultKind::kFullSpoolDisk:
        return FillDisk(fault, system_->spool_disk(index), &worker);
      case FaultKind::kLimitStoreFiles:
        return LimitFiles(fault, &coordinator);
      case FaultKind::kLimitSpoolFiles:
        return LimitFiles(fault, &worker);
      case FaultKind::kStepCoordinatorClock:
        return StepClock(fault, &system_->coordinator_clock());
      case FaultKind::kStepWorkerClock:
        return StepClock(fault, &system_->worker_clock(index));
      case FaultKind::kLyingWorker:
        return Lie();
    }
    return false;
  }();
  if (!struck) return false;
  ++report_.injected[fault.kind];
  say_(fmt::format("{} ({} samples, held {})", NameOf(fault.kind), system_->NumSamples(),
                   absl::FormatDuration(fault.hold)));
  return true;
}

// Answers to the worker are held back while the coordinator goes on; once samples of this worker
// have been committed, it dies and what it answered is thrown away. To the worker, and to the
// disk, that is a death between COMMIT and the answer.
bool Round::KillUnacknowledged() {
  // Without units no samples come, and no units while answers are held back.
  const int64_t num_leased = system_->QueryInteger(
      "SELECT count(*) FROM unit JOIN lease ON lease.id = unit.lease_id"
      " WHERE unit.state = 2 AND lease.worker_id = 'w1' AND lease.ended_time_us IS NULL");
  if (num_leased <= 0) return false;
  testing::TcpProxy& link = system_->proxy(0);
  const auto stored = [this] {
    return system_->QueryInteger(
        "SELECT count(*) FROM sample JOIN lease ON lease.id = sample.lease_id"
        " WHERE lease.worker_id = 'w1'");
  };
  link.Hold(/*to_server=*/false, /*to_client=*/true);
  const int64_t answered = stored();
  StepUntil([&] { return stored() > answered || Settled(); }, kReportPatience);
  const bool committed = answered >= 0 && stored() > answered;
  const bool killed = committed && system_->Kill(&system_->coordinator(), absl::ZeroDuration());
  link.Drop();
  link.Heal();
  if (!killed) return false;
  // It reports again, to a coordinator that has the samples.
  const bool again = StepUntil(
      [this] { return system_->Metric("assay_samples_total{outcome=\"duplicate\"}") > 0; },
      kPatience);
  if (!again) Problem("samples without an answer were not reported again\n" + system_->Logs());
  return again;
}

bool Round::KillChild(const Fault& fault, const std::string& program) {
  for (int i = 0; i < kNumWorkers; ++i) {
    const auto& worker = system_->worker(static_cast<int>((fault.choice + i) % kNumWorkers));
    if (worker.process == nullptr) continue;
    for (const pid_t pid : ChildrenOf(worker.process->pid(), program)) {
      if (::kill(pid, SIGKILL) == 0) return true;
    }
  }
  return false;
}

bool Round::StopProgram(const Fault& fault, ChaosSystem::Program* program) {
  if (program->process == nullptr || !program->process->running()) return false;
  const pid_t pid = program->process->pid();
  program->process->Signal(SIGSTOP);
  Hold(fault, [program, pid] {
    if (program->process != nullptr && program->process->pid() == pid) {
      program->process->Signal(SIGCONT);
    }
  });
  return true;
}

// Half of them are never continued: the worker must find out.
bool Round::StopChild(const Fault& fault, const std::string& program) {
  for (int i = 0; i < kNumWorkers; ++i) {
    auto& worker = system_->worker(static_cast<int>((fault.choice + i) % kNumWorkers));
    if (worker.process == nullptr) continue;
    for (const pid_t pid : ChildrenOf(worker.process->pid(), program)) {
      if (IsStopped(pid) || ::kill(pid, SIGSTOP) != 0) continue;
      if (fault.choice % 4 < 2) return true;
      Hold(fault, [&worker, program, pid] {
        if (worker.process == nullptr) return;
        for (const pid_t child : ChildrenOf(worker.process->pid(), program)) {
          if (child == pid) ::kill(pid, SIGCONT);
        }
      });
      return true;
    }
  }
  return false;
}

testing::TcpProxy& Round::LinkOf(const Fault& fault) {
  const int worker = static_cast<int>(fault.choice % kNumWorkers);
  return system_->proxy(system_->behind_proxy(worker) ? worker : 0);
}

bool Round::BlackholeLink(const Fault& fault) {
  testing::TcpProxy& link = LinkOf(fault);
  const uint64_t direction = fault.choice / 2 % 3;
  link.Hold(/*to_server=*/direction != 1, /*to_client=*/direction != 2);
  // Some links come back with what was on them, some with nothing.
  const bool forgets = fault.choice / 8 % 2 == 0;
  Hold(fault, [&link, forgets] {
    if (forgets) link.Drop();
    link.Heal();
  });
  return true;
}

bool Round::SlowLink(const Fault& fault) {
  testing::TcpProxy& link = LinkOf(fault);
  link.Slow(absl::Milliseconds(20 + fault.choice / 2 % 100),
            static_cast<int>(200 + fault.choice / 256 % 4000));
  Hold(fault, [&link] { link.Heal(); });
  return true;
}

bool Round::CutLink(const Fault& fault) {
  testing::TcpProxy& link = LinkOf(fault);
  const int64_t before = link.counters().num_cut;
  link.CutAfter(static_cast<int64_t>(1 + fault.choice / 2 % 20'000));
  const bool cut =
      StepUntil([&] { return link.counters().num_cut > before || Settled(); }, kPatience) &&
      link.counters().num_cut > before;
  link.Heal();
  return cut;
}

bool Round::DisturbNetwork(const Fault& fault) {
  NetworkNamespace* const network = system_->network();
  absl::Status disturbed;
  if (fault.kind == FaultKind::kBlackholeNetwork) {
    disturbed = network->Blackhole(/*outward=*/fault.choice / 2 % 2 == 0);
  } else if (fault.kind == FaultKind::kUnplugNetwork) {
    disturbed = network->Unplug();
  } else {
    disturbed = network->Degrade(absl::Milliseconds(20 + fault.choice / 2 % 200),
                                 static_cast<int>(fault.choice / 512 % 20));
  }
  if (!disturbed.ok()) Problem(Message(disturbed));
  Hold(fault, [this, network] {
    if (const absl::Status healed = network->Heal(); !healed.ok()) Problem(Message(healed));
  });
  return disturbed.ok();
}

bool Round::FillDisk(const Fault& fault, SmallDisk* disk, ChaosSystem::Program* program) {
  if (const absl::Status filled = disk->Fill(); !filled.ok()) {
    Problem(Message(filled));
    return false;
  }
  program->disk_is_full = true;
  Hold(fault, [disk, program] {
    disk->Free();
    program->disk_is_full = false;
  });
  return true;
}

bool Round::LimitFiles(const Fault& fault, ChaosSystem::Program* program) {
  if (program->process == nullptr || !program->process->running()) return false;
  const pid_t pid = program->process->pid();
  const auto limit = static_cast<int64_t>(fault.choice / 2 % (64 << 10));
  if (const absl::Status limited = LimitFileSize(pid, limit); !limited.ok()) {
    Problem(Message(limited));
    return false;
  }
  // One that is still opening its files ends with a word, as on a full disk.
  if (program == &system_->coordinator() && !system_->coordinator_serves()) {
    program->may_fail = true;
  }
  Hold(fault, [this, program, pid] {
    if (program->process == nullptr || program->process->pid() != pid) return;
    if (const absl::Status lifted = LimitFileSize(pid, -1); !lifted.ok()) {
      Problem(Message(lifted));
    }
  });
  return true;
}

bool Round::StepClock(const Fault& fault, ShiftedClock* clock) {
  // From what NTP steps to what a dead battery does.
  constexpr absl::Duration kSteps[] = {absl::Seconds(2), absl::Seconds(90), absl::Hours(1),
                                       absl::Hours(48)};
  const absl::Duration step = kSteps[fault.choice / 2 % 4];
  clock->SetOffset(fault.choice / 8 % 2 == 0 ? step : -step);
  Hold(fault, [clock] { clock->SetOffset(absl::ZeroDuration()); });
  return true;
}

bool Round::Lie() {
  // Some lies need leases of other workers, who have none where little is left to do.
  if (system_->NumSamples() > kNumUnits / 2) return false;
  const Lies lies = TellLies(system_.get());
  for (const std::string& believed : lies.believed) Problem("a lie was believed: " + believed);
  for (const auto& [lie, times] : lies.refused) report_.lies[lie] += times;
  return lies.told_all;
}

// The end -----------------------------------------------------------------------------------------

void Round::CheckWhatIsStored() {
  const auto must_be = [this](int64_t expected, const char* what, const std::string& sql) {
    const int64_t found = system_->QueryInteger(sql);
    if (found != expected) Problem(fmt::format("{}: {}, not {}", what, found, expected));
  };
  must_be(kSweepDone, "the sweep's state", "SELECT state FROM sweep");
  must_be(0, "quarantined units", "SELECT count(*) FROM unit WHERE state = 4");
  must_be(0, "units that are not done", "SELECT count(*) FROM unit WHERE state <> 3");
  must_be(kNumUnits, "done units", "SELECT count(*) FROM unit WHERE state = 3");
  must_be(0, "samples put back", "SELECT count(*) FROM requeued_sample");
  must_be(0, "failures that the liar made up",
          fmt::format("SELECT count(*) FROM attempt WHERE message LIKE '%{}%'", kLiarsFailure));
  if (const absl::Status stopped = system_->StopCleanly(); !stopped.ok()) {
    Problem(Message(stopped));
  }
  for (int i = 0; i < kNumWorkers; ++i) {
    for (const auto& entry :
         fs::directory_iterator(fmt::format("{}/w{}/spool", directory_, i + 1))) {
      if (entry.path().extension() == ".spool") {
        Problem("left in a spool after a clean end: " + entry.path().string());
      }
    }
  }
  const testing::CommandResult checked =
      testing::RunProgram({testing::BinaryPath("assay"), "db", "check", system_->database()});
  if (checked.exit_code != 0) Problem("assay db check: " + checked.out + checked.err);
  const auto connection = storage::sqlite::Connection::OpenReader(system_->database());
  const absl::Status integrity =
      connection.ok() ? (*connection)->CheckIntegrity(/*full=*/true) : connection.status();
  if (!integrity.ok()) Problem("integrity_check: " + Message(integrity));
  auto results = ReadResults(system_->database());
  if (results.ok()) {
    report_.results = *std::move(results);
  } else {
    Problem(Message(results.status()));
  }
}

// Out of the small disk, which ends with the system.
void Round::KeepWhatIsStored() {
  std::error_code ignored;
  fs::create_directories(directory_ + "/stored", ignored);
  for (const char* name : {"assay.db", "assay.db-wal"}) {
    fs::copy_file(directory_ + "/data/" + name, directory_ + "/stored/" + name, ignored);
  }
}

std::vector<FaultKind> PossibleKinds(const Means& means, std::vector<std::string>* skipped) {
  std::vector<FaultKind> possible;
  for (int i = 0; i < kNumFaultKinds; ++i) {
    const auto kind = static_cast<FaultKind>(i);
    std::string why_not;
    if (kind == FaultKind::kBlackholeNetwork || kind == FaultKind::kUnplugNetwork) {
      why_not = means.no_namespaces;
    } else if (kind == FaultKind::kDegradeNetwork) {
      why_not = means.no_degrading;
    } else if (kind == FaultKind::kFullStoreDisk || kind == FaultKind::kFullSpoolDisk) {
      why_not = means.no_mounts;
    } else if (kind == FaultKind::kStepCoordinatorClock || kind == FaultKind::kStepWorkerClock) {
      why_not = means.no_clock_steps;
    }
    if (why_not.empty()) {
      possible.push_back(kind);
    } else {
      skipped->push_back(fmt::format("skipped: {}: {}", NameOf(kind), why_not));
    }
  }
  return possible;
}

}  // namespace assay::chaos
