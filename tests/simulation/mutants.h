// Planted bugs: each must be found by the simulation, or the simulation is worth nothing.
//
// Production code knows nothing of them. Those in SQL are made by rewriting statements on their way
// to SQLite, those in policies by the linker's --wrap, the others by the shells around the control
// plane (its batches, its clock, its disk).
#pragma once

#include <span>
#include <string_view>

namespace assay::simulation {

enum class Mutant {
  kNone,
  kEpochNotRaised,         // a grant keeps the unit's epoch
  kEpochIgnored,           // a sample counts under any epoch
  kExpiryFences,           // a late answer to a unit that nobody else has is thrown away
  kCancelledTakesSamples,  // units of cancelled sweeps are still stored
  kRequeueKeepsEpoch,      // the old sample may come again after it was requeued
  kRequeuedEpochTaken,     // the epoch that a requeue raised is its old lease's
  kEndedLeaseKeepsUnits,   // units of an ended lease stay leased in the database
  kFailuresNotDistinct,    // one bad machine quarantines healthy units
  kJobEpochNotRaised,      // two grants of a job look alike
  kAckBeforeCommit,        // answers leave before the transaction commits
  kFailedCommitAcked,      // answers leave although it did not
  kSyncIgnored,            // commits are not durable
  kLeaseClockOfWorker,     // leases live by the clocks of workers
  kLeaseClockIsWall,       // leases notice when somebody sets the clock
  kLeaseRenewedIdle,       // a heartbeat without progress renews
  kLeasesNeverExpire,      // nobody looks for lapsed leases
  kRestartExtendsNothing,  // a restart does not wait for workers to come back
  kPriorityIgnored,        // the oldest sweep first, whatever its priority
  kShareIgnored,           // an owner's oldest sweep gets all that is hers
  kOwnerIgnored,           // who has more sweeps gets more
  kFitIgnored,             // cells go to slots that cannot hold them
  kRevokeSaidOnce,         // a worker that missed a revocation goes on
  kPauseNotStored,         // a paused sweep runs again after a restart
};

struct MutantInfo {
  Mutant mutant;
  std::string_view name;  // as --mutant takes it
};

std::span<const MutantInfo> AllMutants();  // without kNone

// From now on, for the whole process. Also says how often it has changed something so far: a mutant
// whose statement was rephrased changes nothing.
void PlantMutant(Mutant mutant);
Mutant PlantedMutant();
long NumMutations();
void CountMutation();

}  // namespace assay::simulation
