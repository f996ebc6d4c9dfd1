// What is computed in a simulation: small sweeps over shared cells, and the one true answer of
// every unit. Tokens are a pure function of cell, item and repeat, so a stored sample can be
// checked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/control/messages.h"
#include "coordinator/planner/plan.h"
#include "coordinator/scheduler/slot_policy.h"
#include "tests/simulation/random.h"

namespace assay::simulation {

class Workload {
 public:
  explicit Workload(uint64_t seed);

  // A sweep over some of the cells; cells repeat between sweeps, with other items and repeats.
  coordinator::PlannedSweep MakeSweep();

  // What the n-th worker has. The first one can hold every cell, or sweeps would not end; of the
  // others many are too small for some.
  std::vector<coordinator::SlotShape> MakeSlots(int worker);

  // The sample that an honest worker makes of a granted unit. Lease, epoch and worker are the
  // caller's to fill in.
  static storage::SampleRecord MakeSample(const coordinator::CellContext& cell,
                                          const coordinator::UnitGrant& unit);
  // What of a sample may not depend on who made it and when.
  static uint64_t Fingerprint(const storage::SampleRecord& sample);

  // Crashes every runner that touches it.
  bool IsPoison(const std::string& cell_key, int32_t item_index) const;
  // Its quantization fails by its own error.
  bool IsBadArtifact(const std::string& artifact_key) const;

 private:
  const uint64_t seed_;
  Random random_;
  int num_sweeps_ = 0;
  int32_t num_items_ = 0;
  bool has_poison_ = false;
  bool has_bad_artifact_ = false;
};

}  // namespace assay::simulation
