// Which sweep and which of its cells a free slot serves next, or which job. Pure functions of what
// the scheduler shows them.
//
// Priority decides first. Among sweeps of the highest priority that have work, a slot stays with
// the model it has loaded for at most `kStickinessCap`, so that loading is rare and nothing
// starves. Beyond that shares are equal on two levels: the owner with the fewest units in flight is
// next, so that ten sweeps of one person weigh no more than one of another, and of hers the sweep
// with the fewest; of equals the one that has waited longer. Within a sweep a slot takes a cell
// whose model fewest slots have loaded: slots that spread over cells meet each cell's slow tail
// once, slots that share a cell all meet it.
//
// A job comes before cells of its priority, because it makes work for other slots; but not before
// those of an owner who has less in flight: a hundred jobs of one person hold nobody up.
#pragma once

#include <absl/time/time.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace assay::coordinator {

inline constexpr absl::Duration kStickinessCap = absl::Minutes(10);

// What a job counts as, of the units in flight: it takes a slot of its own, as a chunk does.
inline constexpr int64_t kUnitsOfAJob = 16;

// What an owner has of the fleet now.
struct OwnerShare {
  int64_t num_leased = 0;   // units in flight, with kUnitsOfAJob for each job
  int64_t last_served = 0;  // rises with every grant; 0: never
  friend auto operator<=>(const OwnerShare&, const OwnerShare&) = default;
};

struct SweepCandidate {
  int64_t sweep_id = 0;  // rises with age
  int32_t priority = 0;
  OwnerShare owner;
  int64_t num_leased = 0;   // units in flight on the sweep's account
  int64_t last_served = 0;  // rises with every grant; 0: never
  bool has_loaded = false;  // it has work for what the slot has loaded
};

// The index of the sweep to serve; empty when there is none. `sticky`: the slot has something
// loaded, and for less than the cap.
std::optional<size_t> ChooseSweep(std::span<const SweepCandidate> sweeps, bool sticky);

struct JobCandidate {
  int64_t job_id = 0;  // rises with age
  int32_t priority = 0;
  OwnerShare owner;
};

// The index of the job to do next; empty when there is none.
std::optional<size_t> ChooseJob(std::span<const JobCandidate> jobs);

// Whether a slot that could have either takes the job before units of `sweep`.
bool JobGoesFirst(const JobCandidate& job, int32_t sweep_priority, const OwnerShare& sweep_owner);

struct CellCandidate {
  int32_t position = 0;           // in the sweep's plan
  int32_t num_slots_on_load = 0;  // slots that work with this cell's model now
};

// Whether `a` is the better next cell for a slot that has nothing of use loaded.
bool BetterCell(const CellCandidate& a, const CellCandidate& b);

}  // namespace assay::coordinator
