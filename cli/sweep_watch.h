// Following a sweep until it settles, and showing it: redrawn on a terminal, lines in a pipe.
#pragma once

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cli/client.h"
#include "cli/progress_view.h"
#include "cli/terminal.h"

namespace assay::cli {

// Calls `on_update` with every state of the sweep until it is settled, and returns the last one. A
// coordinator that goes away is waited for (Client's outage patience after each message).
absl::StatusOr<v1::Sweep> FollowSweep(Client* client, const std::string& sweep_id,
                                      absl::Duration interval,
                                      const std::function<void(const v1::Sweep&)>& on_update);

// How a followed sweep is shown on `fd`. On a terminal it is redrawn in place, with the workers. In
// a pipe there is a line, with the time, when a cell settles, when the sweep's state changes, and
// at most every ten seconds for the progress. Not thread-safe.
class SweepDisplay {
 public:
  // `client` may be null: then no workers are shown. Both outlive the display.
  SweepDisplay(int fd, Client* client, const Clock* clock);

  void Update(const v1::Sweep& reported);

 private:
  void Redraw(const v1::Sweep& sweep);
  void WriteLines(const v1::Sweep& sweep);
  void WriteLine(const std::string& line);
  void RefreshWorkers();

  const int fd_;
  Client* const client_;
  const Clock* const clock_;
  SpeedSmoother speed_;
  std::unique_ptr<LiveScreen> screen_;  // null in a pipe
  std::vector<v1::Worker> workers_;
  absl::Duration workers_asked_at_ = -absl::InfiniteDuration();
  absl::Duration progress_shown_at_ = -absl::InfiniteDuration();
  std::optional<v1::SweepState> state_shown_;
  std::set<int64_t> cells_shown_;  // settled, and told
};

// Follows `sweep_id` on `fd` and returns the exit code: 0 when every unit has its sample, 1 when
// some failed or the sweep was cancelled. With `json`, every state is a line on stdout instead.
absl::StatusOr<int> WatchSweep(Client* client, const std::string& sweep_id, int fd, bool json);

}  // namespace assay::cli
