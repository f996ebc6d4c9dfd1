#include "cli/sweep_watch.h"

#include <unistd.h>

#include <cstdio>

#include "base/exit_codes.h"
#include "base/status.h"
#include "cli/interrupt.h"
#include "cli/output/json.h"
#include "cli/output/text.h"
#include "cli/progress_view.h"
#include "cli/session.h"

namespace assay::cli {
namespace {

constexpr absl::Duration kInterval = absl::Milliseconds(500);
constexpr absl::Duration kWorkersEvery = absl::Seconds(1);
constexpr absl::Duration kProgressEvery = absl::Seconds(10);
constexpr absl::Duration kReconnectPause = absl::Milliseconds(250);

}  // namespace

absl::StatusOr<v1::Sweep> FollowSweep(Client* client, const std::string& sweep_id,
                                      absl::Duration interval,
                                      const std::function<void(const v1::Sweep&)>& on_update) {
  const Clock* clock = RealClock::Get();
  v1::WatchSweepRequest request;
  request.set_sweep_id(sweep_id);
  request.set_min_interval_us(absl::ToInt64Microseconds(interval));
  std::optional<v1::Sweep> last;
  absl::Duration last_heard = clock->Monotonic();
  while (true) {
    const absl::Status status = client->ReadStream<v1::WatchSweepResponse>(
        absl::InfiniteDuration(),
        [&](grpc::ClientContext* context) { return client->sweeps().WatchSweep(context, request); },
        [&](const v1::WatchSweepResponse& response) {
          last = response.sweep();
          last_heard = clock->Monotonic();
          on_update(*last);
          return !IsSettled(last->state());
        });
    if (last && IsSettled(last->state())) return *last;
    // A stream that ends without a settled state was rotated by the server: go on with the next.
    if (!status.ok() && status.code() != absl::StatusCode::kUnavailable) return status;
    const absl::Duration patience =
        last ? client->options().outage_patience : client->options().connect_patience;
    if (!status.ok() && clock->Monotonic() - last_heard > patience) return status;
    if (WaitForInterrupt(kReconnectPause)) return Cancelled("interrupted");
  }
}

SweepDisplay::SweepDisplay(int fd, Client* client, const Clock* clock)
    : fd_(fd), client_(client), clock_(clock) {
  if (IsTerminal(fd)) screen_ = std::make_unique<LiveScreen>(fd, LiveScreen::Mode::kInline);
}

void SweepDisplay::Update(const v1::Sweep& reported) {
  const v1::Sweep sweep = speed_.Smooth(reported, clock_->Monotonic());
  if (screen_ != nullptr) {
    Redraw(sweep);
  } else {
    WriteLines(sweep);
  }
}

void SweepDisplay::RefreshWorkers() {
  if (client_ == nullptr || clock_->Monotonic() - workers_asked_at_ < kWorkersEvery) return;
  workers_asked_at_ = clock_->Monotonic();
  const auto answer = client_->Call(client_->fleet(), &v1::FleetService::StubInterface::ListWorkers,
                                    v1::ListWorkersRequest(), kWorkersEvery, Client::Retry::kNo);
  if (!answer.ok()) return;  // the sweep matters more: the next update asks again
  workers_.clear();
  for (const v1::Worker& worker : answer->workers()) {
    if (worker.state() != v1::Worker::STATE_OFFLINE) workers_.push_back(worker);
  }
}

void SweepDisplay::Redraw(const v1::Sweep& sweep) {
  if (!IsSettled(sweep.state())) {
    RefreshWorkers();
  } else {
    workers_.clear();
  }
  const TerminalSize size = GetTerminalSize(fd_);
  screen_->Draw(SweepLines(sweep, workers_, clock_->Now(),
                           {.columns = size.columns,
                            .rows = size.rows,
                            .unicode = UnicodeLocale(),
                            .style = Style(WantsColour(fd_))}));
}

void SweepDisplay::WriteLine(const std::string& line) {
  const std::string text =
      absl::FormatTime("%H:%M:%S", clock_->Now(), absl::LocalTimeZone()) + "  " + line + "\n";
  if (fd_ == STDOUT_FILENO) {
    Print(text);
    std::fflush(stdout);  // a reader of the pipe wants it now
  } else {
    [[maybe_unused]] const ssize_t n = ::write(fd_, text.data(), text.size());
  }
}

void SweepDisplay::WriteLines(const v1::Sweep& sweep) {
  for (const v1::CellStatus& cell : sweep.cells()) {
    if (!IsSettled(cell.state()) || !cells_shown_.insert(cell.cell_id()).second) continue;
    WriteLine(CellSettledLine(cell));
  }
  const absl::Duration now = clock_->Monotonic();
  if (state_shown_ == sweep.state() && now - progress_shown_at_ < kProgressEvery) return;
  state_shown_ = sweep.state();
  progress_shown_at_ = now;
  WriteLine(SweepProgressLine(sweep));
}

absl::StatusOr<int> WatchSweep(Client* client, const std::string& sweep_id, int fd, bool json) {
  std::optional<SweepDisplay> display;
  if (!json) display.emplace(fd, client, RealClock::Get());
  ASSAY_ASSIGN_OR_RETURN(const v1::Sweep sweep,
                         FollowSweep(client, sweep_id, kInterval, [&](const v1::Sweep& state) {
                           if (display) {
                             display->Update(state);
                           } else {
                             PrintLine(MessageJson(state));
                             std::fflush(stdout);
                           }
                         }));
  return sweep.state() == v1::SWEEP_STATE_DONE ? kExitOk : kExitFailure;
}

}  // namespace assay::cli
