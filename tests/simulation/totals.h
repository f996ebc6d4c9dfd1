// What many simulations did, in sum.
#pragma once

#include <fmt/format.h>

#include <map>
#include <string>

#include "tests/simulation/simulation.h"

namespace assay::simulation {

class Totals {
 public:
  void Add(const SimulationResult& r) {
    ++num_seeds_;
    hours_ += absl::ToDoubleHours(r.simulated);
    const auto add = [this](const char* name, int64_t count) { counts_[name] += count; };
    add("events", r.num_events);
    add("comparisons of rows and memory", r.num_checks);
    add("samples accepted", r.num_accepted);
    add("samples answered duplicate", r.num_duplicates);
    add("samples answered fenced", r.num_fenced);
    add("units quarantined", r.num_quarantined);
    add("batches", r.coordinator.batches);
    add("batches lost by the disk", r.coordinator.lost_batches);
    add("slow commits", r.coordinator.slow_batches);
    add("starts refused by the disk", r.coordinator.refused_starts);
    static constexpr const char* kPoints[] = {"crash between batches", "crash before begin",
                                              "crash while handling",  "crash in commit",
                                              "crash after commit",    "crash after some answers"};
    for (int i = 0; i < kNumCrashPoints; ++i) add(kPoints[i], r.coordinator.crashes[i]);
    add("crashes that were power cuts", r.coordinator.power_cuts);
    add("sectors lost at power cuts", r.sectors_lost);
    add("writes refused", r.writes_refused);
    add("disk full", r.people.disk_full);
    add("disk failing", r.people.disk_failing);
    add("messages", r.network.sent);
    add("messages dropped", r.network.dropped);
    add("messages delayed", r.network.delayed);
    add("messages duplicated", r.network.duplicated);
    add("messages replayed hours later", r.network.replayed);
    add("partitions", r.network.partitions);
    add("worker crashes", r.workers.crashes);
    add("worker stalls", r.workers.stalls);
    add("runner hangs", r.workers.hangs);
    add("runner crashes", r.workers.runner_crashes);
    add("runner crashes by poison", r.workers.poisoned);
    add("job failures", r.workers.job_failures);
    add("lies", r.people.lies);
    add("wall clock steps", r.people.wall_steps);
    add("sweeps submitted", r.people.submits);
    add("pauses", r.people.pauses);
    add("cancels", r.people.cancels);
    add("retries", r.people.retries);
    add("requeues", r.people.requeues);
    add("drains", r.people.drains);
  }

  double hours() const { return hours_; }
  int64_t operator[](const std::string& name) const { return counts_.at(name); }
  std::string Print() const {
    std::string text = fmt::format("{} seeds, {:.0f} simulated hours\n", num_seeds_, hours_);
    for (const auto& [name, count] : counts_) text += fmt::format("{:>12} {}\n", count, name);
    return text;
  }

 private:
  int num_seeds_ = 0;
  double hours_ = 0;
  std::map<std::string, int64_t> counts_;
};

}  // namespace assay::simulation
