#include "coordinator/scheduler/cell_policy.h"

#include <tuple>

namespace assay::coordinator {

std::optional<size_t> ChooseSweep(std::span<const SweepCandidate> sweeps, bool sticky) {
  std::optional<size_t> best;
  // Smaller is better.
  const auto rank = [&](const SweepCandidate& sweep) {
    return std::tuple(-sweep.priority, sticky && sweep.has_loaded ? 0 : 1, sweep.num_leased,
                      sweep.last_served, sweep.sweep_id);
  };
  for (size_t i = 0; i < sweeps.size(); ++i) {
    if (!best || rank(sweeps[i]) < rank(sweeps[*best])) best = i;
  }
  return best;
}

bool BetterCell(const CellCandidate& a, const CellCandidate& b) {
  return std::tie(a.num_slots_on_load, a.position) < std::tie(b.num_slots_on_load, b.position);
}

}  // namespace assay::coordinator
