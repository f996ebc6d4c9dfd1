#include "coordinator/scheduler/cell_policy.h"

#include <tuple>

namespace assay::coordinator {

std::optional<size_t> ChooseSweep(std::span<const SweepCandidate> sweeps, bool sticky) {
  std::optional<size_t> best;
  // Smaller is better.
  const auto rank = [&](const SweepCandidate& sweep) {
    return std::tuple(-sweep.priority, sticky && sweep.has_loaded ? 0 : 1, sweep.owner,
                      sweep.num_leased, sweep.last_served, sweep.sweep_id);
  };
  for (size_t i = 0; i < sweeps.size(); ++i) {
    if (!best || rank(sweeps[i]) < rank(sweeps[*best])) best = i;
  }
  return best;
}

std::optional<size_t> ChooseJob(std::span<const JobCandidate> jobs) {
  std::optional<size_t> best;
  const auto rank = [](const JobCandidate& job) {
    return std::tuple(-job.priority, job.owner, job.job_id);
  };
  for (size_t i = 0; i < jobs.size(); ++i) {
    if (!best || rank(jobs[i]) < rank(jobs[*best])) best = i;
  }
  return best;
}

bool JobGoesFirst(const JobCandidate& job, int32_t sweep_priority, const OwnerShare& sweep_owner) {
  if (job.priority != sweep_priority) return job.priority > sweep_priority;
  return job.owner.num_leased <= sweep_owner.num_leased;
}

bool BetterCell(const CellCandidate& a, const CellCandidate& b) {
  return std::tie(a.num_slots_on_load, a.position) < std::tie(b.num_slots_on_load, b.position);
}

}  // namespace assay::coordinator
