// What `sweep watch`, `demo` and `top` show, as lines of text: pure functions of a snapshot.
#pragma once

#include <absl/time/time.h>

#include <string>
#include <vector>

#include "assay/v1/fleet_service.pb.h"
#include "assay/v1/sweep_service.pb.h"
#include "cli/output/style.h"

namespace assay::cli {

namespace v1 = ::assay::v1;

struct ViewOptions {
  int columns = 80;
  int rows = 24;
  bool unicode = false;  // block elements in bars
  Style style{false};
};

// "kvquant_star pre-bias": the method as people say it, without its bits.
std::string MethodLabel(const v1::QuantMethod& method);

// "61.2 GiB of 77.2 GiB": what its slots use, of what they may; "-" when nobody has said.
std::string MemoryText(const v1::Worker& worker);

// "running", "done", ... of a sweep or a cell.
std::string StateName(v1::SweepState state);
std::string StateName(v1::CellStatus::State state);
std::string StateName(v1::Worker::State state);

bool IsSettled(v1::SweepState state);
bool IsSettled(v1::CellStatus::State state);

// How much of the sweep is done, 0..1. Counted in tokens, because a unit that runs to its limit
// takes ten times as long as one that answers; in units while the expected tokens are unknown.
double FractionDone(const v1::Sweep& sweep);

// The speed of a sweep as people can read it. What a coordinator reports is of the last second and
// drops to nothing whenever runners change models; this is its exponential mean over about ten
// seconds, and the time left follows from it. Not thread-safe.
class SpeedSmoother {
 public:
  // `sweep` as reported at `now` (a monotonic time), with tokens_per_s and eta_us replaced.
  v1::Sweep Smooth(v1::Sweep sweep, absl::Duration now);

 private:
  double tokens_per_s_ = 0;  // 0: none seen yet
  absl::Duration updated_ = absl::ZeroDuration();
};

// The live display of one sweep: progress, cells, workers; never more lines than the terminal has.
// Cells that run or failed win over those that wait when not all fit.
std::vector<std::string> SweepLines(const v1::Sweep& sweep, const std::vector<v1::Worker>& workers,
                                    absl::Time now, const ViewOptions& options);

// The live display of the fleet.
std::vector<std::string> FleetLines(const v1::WatchFleetResponse& fleet, absl::Time now,
                                    const ViewOptions& options);

// For pipes, one line each: "41.2% 2,480/6,000 units 412k of ~1.00M tokens 15.2k tokens/s ETA 39s".
std::string SweepProgressLine(const v1::Sweep& sweep);
// "cell 3 done: tiny-qwen2-1m rtn 4-16-16 arith500: 93.4% of 500, 58.0k tokens".
std::string CellSettledLine(const v1::CellStatus& cell);
std::string FleetLine(const v1::WatchFleetResponse& fleet);

}  // namespace assay::cli
