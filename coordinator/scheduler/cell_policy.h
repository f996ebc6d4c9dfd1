// Which sweep and which of its cells a free slot serves next. Pure functions of what the scheduler
// shows them.
//
// Priority decides first. Among sweeps of the highest priority that have work, a slot stays with
// the model it has loaded for at most `kStickinessCap`, so that loading is rare and nothing
// starves; beyond that the sweep with the fewest units in flight is next, and the older one of
// equals. Within a sweep a slot takes a cell whose model fewest slots have loaded: slots that
// spread over cells meet each cell's slow tail once, slots that share a cell all meet it.
#pragma once

#include <absl/time/time.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace assay::coordinator {

inline constexpr absl::Duration kStickinessCap = absl::Minutes(10);

struct SweepCandidate {
  int64_t sweep_id = 0;  // rises with age
  int32_t priority = 0;
  int64_t num_leased = 0;   // units in flight on the sweep's account
  int64_t last_served = 0;  // rises with every grant; 0: never
  bool has_loaded = false;  // it has work for what the slot has loaded
};

// The index of the sweep to serve; empty when there is none. `sticky`: the slot has something
// loaded, and for less than the cap.
std::optional<size_t> ChooseSweep(std::span<const SweepCandidate> sweeps, bool sticky);

struct CellCandidate {
  int32_t position = 0;           // in the sweep's plan
  int32_t num_slots_on_load = 0;  // slots that work with this cell's model now
};

// Whether `a` is the better next cell for a slot that has nothing of use loaded.
bool BetterCell(const CellCandidate& a, const CellCandidate& b);

}  // namespace assay::coordinator
