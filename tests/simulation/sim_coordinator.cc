#include "tests/simulation/sim_coordinator.h"

#include <fmt/format.h>

#include <fstream>
#include <utility>

#include "base/status.h"
#include "tests/simulation/mutants.h"

namespace assay::simulation {

using coordinator::ControlPlane;
using coordinator::OutgoingMessage;

namespace {

constexpr size_t kMaxBatch = 64;  // as ControlLoop's
constexpr absl::Duration kRetryStore = absl::Seconds(20);

}  // namespace

SimCoordinator::SimCoordinator(EventQueue* events, SimDisk* disk, Oracle* oracle, uint64_t seed,
                               Options options, Sink sink, std::function<void()> on_down)
    : events_(events),
      disk_(disk),
      oracle_(oracle),
      random_(seed),
      options_(std::move(options)),
      sink_(std::move(sink)),
      on_down_(std::move(on_down)),
      clock_(events) {
  if (PlantedMutant() == Mutant::kLeaseClockIsWall) clock_.FollowWall();
}

SimCoordinator::~SimCoordinator() {
  ++life_;
  plane_.reset();
  store_.reset();
}

void SimCoordinator::Start() {
  disk_->Restart();
  ++life_;
  // A process that starts has another zero of monotonic time.
  clock_.SetZero(random_.Between(absl::Seconds(10), absl::Hours(1000)));
  auto store = storage::ControlStore::Open(options_.database);
  absl::Status status = store.status();
  if (status.ok()) {
    store_ = *std::move(store);
    auto plane = ControlPlane::Open(store_.get(), &clock_, options_.control);
    status = plane.status();
    if (status.ok()) plane_ = *std::move(plane);
  }
  if (!status.ok()) {
    store_.reset();
    // A page that cannot be read looks like damage to the check at the start.
    const bool unreadable = absl::IsDataLoss(status) && disk_->is_failing();
    if (!absl::IsUnavailable(status) && !unreadable) {
      oracle_->Fail("the coordinator does not start again: " + Message(status));
      return;
    }
    // The disk fails: whoever supervises it tries again.
    ++counts_.refused_starts;
    if (disk_->crashed()) disk_->Restart();
    events_->After(absl::Minutes(1), [this, life = life_] {
      if (life == life_) Start();
    });
    return;
  }
  ++counts_.starts;
  if (PlantedMutant() == Mutant::kRestartExtendsNothing) {
    CountMutation();
    clock_.SetZero(clock_.zero() + 2 * options_.control.lease_ttl);
  }
  oracle_->OnStart(options_.database, *plane_);
  batch_was_lost_ = false;
  busy_until_ = events_->now();
  next_tick_ = events_->now();
  batch_scheduled_ = false;
  ScheduleBatch(absl::ZeroDuration());
}

void SimCoordinator::Crash(CrashPoint point, CrashKind kind) {
  ++counts_.crashes[static_cast<int>(point)];
  if (kind == CrashKind::kPowerCut) ++counts_.power_cuts;
  if (!disk_->crashed()) disk_->Crash(kind);
  ++life_;
  queue_.clear();
  oracle_->OnStop();
  plane_.reset();
  store_.reset();
  // The lock file is real, and a process that died leaves its number in it: the next one checks
  // the database.
  std::ofstream(options_.database + ".lock") << "1\n";
  on_down_();
  const absl::Duration down = random_.Chance(0.2)
                                  ? random_.Between(absl::Minutes(10), absl::Hours(2))
                                  : random_.Between(absl::Seconds(5), absl::Minutes(5));
  events_->After(down, [this, life = life_] {
    if (life == life_) Start();
  });
}

void SimCoordinator::Post(absl::Duration sender_clock_ahead, Work work, Done done) {
  if (!is_up()) return;
  queue_.push_back({sender_clock_ahead, std::move(work), std::move(done)});
  ScheduleBatch(random_.Between(absl::Milliseconds(10), absl::Seconds(10)));
}

void SimCoordinator::ScheduleBatch(absl::Duration delay) {
  if (batch_scheduled_) return;
  batch_scheduled_ = true;
  events_->At(std::max(busy_until_, events_->now() + delay), [this, life = life_] {
    if (life != life_) return;
    batch_scheduled_ = false;
    RunBatch();
  });
}

void SimCoordinator::RunBatch() {
  ++counts_.batches;
  std::vector<Command> commands;
  while (!queue_.empty() && commands.size() < kMaxBatch) {
    commands.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  CrashPoint point = CrashPoint::kNone;
  CrashKind kind = CrashKind::kKilled;
  if (random_.Chance(faults_.crash)) {
    point = static_cast<CrashPoint>(1 + random_.Below(kNumCrashPoints - 1));
    if (random_.Chance(0.5)) kind = CrashKind::kPowerCut;
  }
  const bool lagging = PlantedMutant() == Mutant::kLeaseClockOfWorker && !commands.empty();
  const absl::Duration zero = clock_.zero();
  if (lagging) {
    CountMutation();
    clock_.SetZero(zero + commands.front().ahead);
  }
  const bool goes_on = Handle(&commands, point, kind);
  if (!goes_on) return;  // it is dead, and its clock will have another zero
  if (lagging) clock_.SetZero(zero);
  absl::Duration next = next_tick_ - events_->now();
  if (batch_was_lost_) next = std::min(next, kRetryStore);
  if (!queue_.empty()) next = absl::ZeroDuration();
  if (random_.Chance(faults_.slow)) {
    ++counts_.slow_batches;
    busy_until_ = events_->now() + random_.Between(absl::Seconds(5), absl::Minutes(2));
  }
  ScheduleBatch(next);
}

// False when the process died on the way.
bool SimCoordinator::Handle(std::vector<Command>* commands, CrashPoint point, CrashKind kind) {
  const auto crash = [&] {
    Crash(point, kind);
    return false;
  };
  if (point == CrashPoint::kBeforeBegin) return crash();
  absl::Status status = plane_->BeginBatch();
  if (disk_->crashed()) return crash();
  if (!status.ok()) {
    status = Unavailable("the store is not available: {}", Message(status));
    batch_was_lost_ = true;
    ++counts_.lost_batches;
    Answer(*commands, status, CrashPoint::kNone, kind);
    return true;
  }
  if (std::exchange(batch_was_lost_, false)) oracle_->OnRebuilt();

  const size_t num_before_crash =
      point == CrashPoint::kWhileHandling ? random_.Index(commands->size() + 1) : commands->size();
  for (size_t i = 0; i < num_before_crash; ++i) (*commands)[i].work(*plane_);
  if (point == CrashPoint::kWhileHandling) return crash();
  bool ticked = false;
  if (events_->now() >= next_tick_) {
    next_tick_ = events_->now() + options_.tick_interval;
    if (PlantedMutant() == Mutant::kLeasesNeverExpire) {
      CountMutation();
      ticked = true;
    } else {
      ticked = plane_->HandleTick().ok();
    }
  }
  if (PlantedMutant() == Mutant::kAckBeforeCommit) {
    CountMutation();
    for (const Command& command : *commands) command.done(absl::OkStatus());
    commands->clear();
  }
  if (point == CrashPoint::kInCommit) disk_->CrashAfter(random_.Below(24), kind);
  status = plane_->CommitBatch();
  if (disk_->crashed()) return crash();
  disk_->Restart();  // a crash that was planned and not reached
  if (!status.ok()) {
    batch_was_lost_ = true;
    ++counts_.lost_batches;
    oracle_->OnLost();
    if (PlantedMutant() == Mutant::kFailedCommitAcked) {
      CountMutation();
      status = absl::OkStatus();
    }
    Answer(*commands, status, CrashPoint::kNone, kind);
    return true;
  }
  std::vector<OutgoingMessage> messages = plane_->TakeMessages();
  if (PlantedMutant() == Mutant::kRevokeSaidOnce) ForgetSaidRevokes(&messages);
  oracle_->OnCommitted(*plane_, messages, ticked);
  if (point == CrashPoint::kAfterCommit) return crash();
  Answer(*commands, status, point, kind);
  if (point == CrashPoint::kAfterSomeAnswers) return crash();
  for (const OutgoingMessage& message : messages) sink_(message);
  const absl::Status checkpointed =
      random_.Chance(0.02) ? store_->CheckpointWhenIdle() : store_->CheckpointIfLarge();
  if (!checkpointed.ok() && !absl::IsUnavailable(checkpointed)) {
    oracle_->Fail("checkpoint: " + Message(checkpointed));
  }
  return true;
}

// A planted bug.
void SimCoordinator::ForgetSaidRevokes(std::vector<OutgoingMessage>* messages) {
  std::erase_if(*messages, [&](const OutgoingMessage& message) {
    const auto* const revoke = std::get_if<coordinator::RevokeMessage>(&message.body);
    if (revoke == nullptr || said_revokes_.insert(revoke->lease_id).second) return false;
    CountMutation();
    return true;
  });
}

void SimCoordinator::Answer(const std::vector<Command>& commands, const absl::Status& status,
                            CrashPoint point, CrashKind /*kind*/) {
  const size_t count =
      point == CrashPoint::kAfterSomeAnswers ? random_.Index(commands.size() + 1) : commands.size();
  for (size_t i = 0; i < count; ++i) commands[i].done(status);
}

}  // namespace assay::simulation
