#include "tests/simulation/mutants.h"

#include <sqlite3.h>

#include <string>
#include <vector>

#include "coordinator/scheduler/cell_policy.h"
#include "coordinator/scheduler/slot_policy.h"

namespace assay::simulation {
namespace {

constexpr MutantInfo kMutants[] = {
    {Mutant::kEpochNotRaised, "epoch_not_raised"},
    {Mutant::kEpochIgnored, "epoch_ignored"},
    {Mutant::kExpiryFences, "expiry_fences"},
    {Mutant::kCancelledTakesSamples, "cancelled_takes_samples"},
    {Mutant::kRequeueKeepsEpoch, "requeue_keeps_epoch"},
    {Mutant::kRequeuedEpochTaken, "requeued_epoch_taken"},
    {Mutant::kEndedLeaseKeepsUnits, "ended_lease_keeps_units"},
    {Mutant::kFailuresNotDistinct, "failures_not_distinct"},
    {Mutant::kJobEpochNotRaised, "job_epoch_not_raised"},
    {Mutant::kAckBeforeCommit, "ack_before_commit"},
    {Mutant::kFailedCommitAcked, "failed_commit_acked"},
    {Mutant::kSyncIgnored, "sync_ignored"},
    {Mutant::kLeaseClockOfWorker, "lease_clock_of_worker"},
    {Mutant::kLeaseClockIsWall, "lease_clock_is_wall"},
    {Mutant::kLeaseRenewedIdle, "lease_renewed_idle"},
    {Mutant::kLeasesNeverExpire, "leases_never_expire"},
    {Mutant::kRestartExtendsNothing, "restart_extends_nothing"},
    {Mutant::kPriorityIgnored, "priority_ignored"},
    {Mutant::kShareIgnored, "share_ignored"},
    {Mutant::kOwnerIgnored, "owner_ignored"},
    {Mutant::kFitIgnored, "fit_ignored"},
    {Mutant::kRevokeSaidOnce, "revoke_said_once"},
    {Mutant::kPauseNotStored, "pause_not_stored"},
};

struct Rewrite {
  Mutant mutant;
  std::string_view from;
  std::string_view to;
};

constexpr Rewrite kRewrites[] = {
    {Mutant::kEpochNotRaised, "SET state = 2, epoch = epoch + 1, num_grants",
     "SET state = 2, epoch = epoch, num_grants"},
    {Mutant::kEpochIgnored,
     "u.epoch = ?4    AND u.state <> 3 AND u.num_grants > 0 AND l.public_id = ?5",
     "?4 > 0 AND u.state <> 3 AND ?5 <> ''"},
    {Mutant::kExpiryFences, "u.state <> 3 AND u.num_grants", "u.state = 2 AND u.num_grants"},
    {Mutant::kCancelledTakesSamples, "sc.num_repeats > u.repeat AND s.state <> 3)",
     "sc.num_repeats > u.repeat)"},
    {Mutant::kRequeueKeepsEpoch, "SET state = 1, epoch = epoch + 1, num_grants = 0",
     "SET state = 1, num_grants = 0"},
    {Mutant::kRequeuedEpochTaken, "u.state <> 3 AND u.num_grants > 0", "u.state <> 3"},
    {Mutant::kEndedLeaseKeepsUnits, "SET state = 1 WHERE lease_id = ?1 AND state = 2",
     "SET state = 1 WHERE lease_id = ?1 AND state = 9"},
    {Mutant::kFailuresNotDistinct, "count(DISTINCT l.worker_id || '/' || l.incarnation)",
     "count(*)"},
    {Mutant::kPauseNotStored, "UPDATE sweep SET state = ?2,",
     "UPDATE sweep SET state = CASE ?2 WHEN 2 THEN 1 ELSE ?2 END,"},
    {Mutant::kJobEpochNotRaised, "SET state = 2, epoch = epoch + 1, worker_id",
     "SET state = 2, epoch = max(epoch, 1), worker_id"},
};

Mutant g_mutant = Mutant::kNone;
long g_num_mutations = 0;

}  // namespace

std::span<const MutantInfo> AllMutants() { return kMutants; }

void PlantMutant(Mutant mutant) {
  g_mutant = mutant;
  g_num_mutations = 0;
}
Mutant PlantedMutant() { return g_mutant; }
long NumMutations() { return g_num_mutations; }
void CountMutation() { ++g_num_mutations; }

}  // namespace assay::simulation

// The linker sends every sqlite3_prepare_v3 of this program here; the names are of its --wrap.
extern "C" {
int __real_sqlite3_prepare_v3(sqlite3* db, const char* sql, int size, unsigned int flags,
                              sqlite3_stmt** statement, const char** tail);
int __wrap_sqlite3_prepare_v3(sqlite3* db, const char* sql, int size, unsigned int flags,
                              sqlite3_stmt** statement, const char** tail) {
  using namespace assay::simulation;
  if (g_mutant != Mutant::kNone && size > 0) {
    std::string text(sql, static_cast<size_t>(size));
    for (const Rewrite& rewrite : kRewrites) {
      const size_t at = rewrite.mutant == g_mutant ? text.find(rewrite.from) : std::string::npos;
      if (at == std::string::npos) continue;
      text.replace(at, rewrite.from.size(), rewrite.to);
      CountMutation();
      return __real_sqlite3_prepare_v3(db, text.c_str(), static_cast<int>(text.size()), flags,
                                       statement, nullptr);
    }
  }
  return __real_sqlite3_prepare_v3(db, sql, size, flags, statement, tail);
}
}

// And every ChooseSweep of the scheduler here.
namespace assay::coordinator {

#define ASSAY_CHOOSE_SWEEP \
  "_ZN5assay11coordinator11ChooseSweepESt4spanIKNS0_14SweepCandidateELm18446744073709551615EEb"

std::optional<size_t> RealChooseSweep(std::span<const SweepCandidate> sweeps,
                                      bool sticky) asm("__real_" ASSAY_CHOOSE_SWEEP);
std::optional<size_t> WrapChooseSweep(std::span<const SweepCandidate> sweeps,
                                      bool sticky) asm("__wrap_" ASSAY_CHOOSE_SWEEP);

std::optional<size_t> WrapChooseSweep(std::span<const SweepCandidate> sweeps, bool sticky) {
  using simulation::Mutant;
  const Mutant mutant = simulation::PlantedMutant();
  if (mutant != Mutant::kPriorityIgnored && mutant != Mutant::kShareIgnored &&
      mutant != Mutant::kOwnerIgnored) {
    return RealChooseSweep(sweeps, sticky);
  }
  simulation::CountMutation();
  std::vector<SweepCandidate> changed(sweeps.begin(), sweeps.end());
  for (SweepCandidate& candidate : changed) {
    if (mutant == Mutant::kPriorityIgnored) {
      candidate.priority = 0;
      continue;
    }
    if (mutant == Mutant::kOwnerIgnored) {
      candidate.owner = {};
      continue;
    }
    candidate.has_loaded = false;
    candidate.num_leased = 0;
    candidate.last_served = 0;
  }
  return RealChooseSweep(changed, sticky);
}

// And every Fits of the scheduler, for its own slots, here.
#define ASSAY_FITS "_ZN5assay11coordinator4FitsERKNS0_8SlotNeedERKNS0_9SlotShapeE"

bool RealFits(const SlotNeed& need, const SlotShape& slot) asm("__real_" ASSAY_FITS);
bool WrapFits(const SlotNeed& need, const SlotShape& slot) asm("__wrap_" ASSAY_FITS);

bool WrapFits(const SlotNeed& need, const SlotShape& slot) {
  const bool fits = RealFits(need, slot);
  if (fits || simulation::PlantedMutant() != simulation::Mutant::kFitIgnored) return fits;
  simulation::CountMutation();
  return true;
}

}  // namespace assay::coordinator
