#include "coordinator/api/sweep_views.h"

#include "base/status.h"
#include "coordinator/api/convert_views.h"

namespace assay::coordinator {
namespace {

bool IsLive(const storage::SweepRecord& record) {
  return record.state == storage::SweepState::kActive ||
         record.state == storage::SweepState::kPaused;
}

}  // namespace

absl::StatusOr<v1::Sweep> ReadSweep(storage::ReadStore& store, ControlLoop* loop,
                                    const std::string& sweep_id, bool with_cells, bool fresh) {
  ASSAY_ASSIGN_OR_RETURN(const storage::SweepRecord record, store.FindSweep(sweep_id));
  return ReadSweep(store, loop, record, with_cells, fresh);
}

absl::StatusOr<v1::Sweep> ReadSweep(storage::ReadStore& store, ControlLoop* loop,
                                    const storage::SweepRecord& found, bool with_cells,
                                    bool fresh) {
  storage::SweepRecord record = found;
  if (IsLive(record)) {
    std::shared_ptr<const LiveSnapshot> present = loop->Snapshot(fresh);
    // Submitted after the snapshot was taken?
    if (present && !present->sweeps.contains(record.id)) present = loop->Snapshot(true);
    if (present && present->sweeps.contains(record.id)) {
      const LiveSweep& live = present->sweeps.at(record.id);
      v1::Sweep sweep = ToProto(record);
      sweep.set_state(live.paused ? v1::SWEEP_STATE_PAUSED : v1::SWEEP_STATE_ACTIVE);
      AddCounts(live, with_cells, &sweep);
      return sweep;
    }
    // It has settled since it was read.
    ASSAY_ASSIGN_OR_RETURN(record, store.FindSweep(record.sweep_id));
  }
  v1::Sweep sweep = ToProto(record);
  ASSAY_ASSIGN_OR_RETURN(const std::vector<storage::SweepCellSummary> cells,
                         store.SweepCells(record.id));
  AddCounts(cells, record.state, with_cells, &sweep);
  return sweep;
}

}  // namespace assay::coordinator
