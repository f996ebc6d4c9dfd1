// What people read, as wire messages: sweeps, workers, rows, samples, events.
#pragma once

#include <string>
#include <vector>

#include "assay/v1/fleet_service.pb.h"
#include "assay/v1/results_service.pb.h"
#include "assay/v1/sweep_service.pb.h"
#include "coordinator/control/live_snapshot.h"
#include "coordinator/planner/plan.h"
#include "coordinator/reports/results.h"
#include "storage/stores/results.h"

namespace assay::coordinator {

// A sweep without its cells and counts.
v1::Sweep ToProto(const storage::SweepRecord& record);
// Fill in the present of a live sweep, or the end of a settled one.
void AddCounts(const LiveSweep& live, bool with_cells, v1::Sweep* sweep);
void AddCounts(const std::vector<storage::SweepCellSummary>& cells, storage::SweepState state,
               bool with_cells, v1::Sweep* sweep);

v1::Worker ToProto(const LiveWorker& worker, int64_t now_us);
v1::Worker OfflineWorker(const storage::WorkerRecord& worker);
v1::Event ToProto(const storage::EventRecord& event);
v1::ResultRow ToProto(const ResultRow& row);
v1::SampleSummary ToProto(const storage::SampleSummary& sample);

}  // namespace assay::coordinator
