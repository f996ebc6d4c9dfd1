// The coordinator's metrics as Prometheus reads them. docs/operations.md explains each.
//
// They come from the same LiveSnapshot as `assay top`, so that the two never disagree. Series have
// labels of bounded number only: states, methods of our services, and workers, of which at most
// kMaxWorkers are listed.
//
// A pure function, thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/control/live_snapshot.h"
#include "storage/stores/results.h"

namespace assay::coordinator {

struct RpcCount {
  std::string method;  // "SweepService/GetSweep"
  std::string code;    // "OK", "UNAVAILABLE", ...
  int64_t num_calls = 0;
};

struct ProcessStats {
  int64_t resident_bytes = 0;
  double cpu_s = 0;
};

struct MetricsInput {
  LiveSnapshot live;
  storage::StoreTotals store;
  std::vector<RpcCount> rpcs;
  ProcessStats process;
};

// Workers beyond so many, the silent ones first, are counted but have no series of their own.
inline constexpr size_t kMaxWorkers = 1000;

std::string RenderMetrics(const MetricsInput& input);

// Of this process, from /proc; zero where it cannot be read.
ProcessStats ReadProcessStats();

}  // namespace assay::coordinator
