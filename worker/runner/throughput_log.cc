#include "worker/runner/throughput_log.h"

#include <fmt/format.h>

namespace assay::worker {
namespace {

constexpr absl::Duration kInterval = absl::Minutes(1);
constexpr absl::Duration kShortestJob = absl::Seconds(5);

}  // namespace

std::optional<std::string> ThroughputLog::Observe(const engine::EngineStats& stats, bool idle) {
  const absl::Duration now = clock_->Monotonic();
  if (!working_) {
    // What this step did belongs to the job.
    working_ = true;
    start_ = now - (stats.total_time - before_.total_time);
    at_start_ = before_;
  }
  before_ = stats;
  const absl::Duration elapsed = now - start_;
  if (!idle && elapsed < kInterval) return std::nullopt;
  std::optional<std::string> line;
  if (elapsed >= kShortestJob) line = Describe(stats, elapsed);
  working_ = !idle;
  start_ = now;
  at_start_ = stats;
  return line;
}

std::optional<std::string> ThroughputLog::Describe(const engine::EngineStats& stats,
                                                   absl::Duration elapsed) const {
  const double seconds = absl::ToDoubleSeconds(elapsed);
  const double bytes = stats.bytes_read - at_start_.bytes_read;
  if (bytes <= 0 || seconds <= 0) return std::nullopt;
  const absl::Duration device = stats.device_time - at_start_.device_time;
  // A CPU has no clock of its own: its steps' time is the device's.
  const absl::Duration computing =
      device > absl::ZeroDuration() ? device : stats.total_time - at_start_.total_time;
  std::string line = fmt::format(
      "{:.1f} s: {:.0f} tokens/s, {:.1f} GB of weights and cache at {:.0f} GB/s", seconds,
      static_cast<double>(stats.tokens_generated - at_start_.tokens_generated) / seconds,
      bytes / 1e9, bytes / 1e9 / absl::ToDoubleSeconds(computing));
  if (device > absl::ZeroDuration()) {
    line += fmt::format(", device idle {:.1f} %", 100 * (1 - absl::FDivDuration(device, elapsed)));
  }
  return line + fmt::format(", {} running, {} waiting, {} preempted", stats.num_running,
                            stats.num_waiting, stats.num_preemptions - at_start_.num_preemptions);
}

}  // namespace assay::worker
