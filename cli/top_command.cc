// assay top: the fleet, live.
#include <unistd.h>

#include <cstdio>
#include <memory>

#include "base/clock.h"
#include "base/exit_codes.h"
#include "base/flag_checks.h"
#include "base/status.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/output/json.h"
#include "cli/progress_view.h"
#include "cli/terminal.h"

namespace assay::cli {
namespace {

struct TopOptions {
  double interval_s = 1;
  int count = 0;
};

void Show(const Session& session, LiveScreen* screen, const v1::WatchFleetResponse& fleet) {
  const absl::Time now = RealClock::Get()->Now();
  if (session.json) {
    PrintLine(MessageJson(fleet));
  } else if (screen != nullptr) {
    const TerminalSize size = GetTerminalSize(STDOUT_FILENO);
    screen->Draw(FleetLines(fleet, now,
                            {.columns = size.columns,
                             .rows = size.rows,
                             .unicode = UnicodeLocale(),
                             .style = StdoutStyle()}));
  } else {
    PrintLine(absl::FormatTime("%H:%M:%S", now, absl::LocalTimeZone()) + "  " + FleetLine(fleet));
  }
  std::fflush(stdout);
}

absl::StatusOr<int> Top(const Session& session, const TopOptions& options) {
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  v1::WatchFleetRequest request;
  request.set_interval_us(static_cast<int64_t>(options.interval_s * 1e6));
  // Made with the first answer: an unreachable coordinator must not blank the screen.
  std::unique_ptr<LiveScreen> screen;
  const bool live = IsTerminal(STDOUT_FILENO) && !session.json;
  int num_shown = 0;
  const Clock* clock = RealClock::Get();
  absl::Duration last_heard = clock->Monotonic();
  while (true) {
    const absl::Status status = client->ReadStream<v1::WatchFleetResponse>(
        absl::InfiniteDuration(),
        [&](grpc::ClientContext* context) { return client->fleet().WatchFleet(context, request); },
        [&](const v1::WatchFleetResponse& fleet) {
          last_heard = clock->Monotonic();
          if (live && screen == nullptr) {
            screen = std::make_unique<LiveScreen>(STDOUT_FILENO, LiveScreen::Mode::kAlternate);
          }
          Show(session, screen.get(), fleet);
          return ++num_shown != options.count;
        });
    if (options.count > 0 && num_shown >= options.count) return kExitOk;
    if (!status.ok() && status.code() != absl::StatusCode::kUnavailable) return status;
    const absl::Duration patience =
        num_shown > 0 ? client->options().outage_patience : client->options().connect_patience;
    if (!status.ok() && clock->Monotonic() - last_heard > patience) return status;
    if (WaitForInterrupt(absl::Milliseconds(250))) return Cancelled("interrupted");
  }
}

}  // namespace

void AddTopCommand(CLI::App& app, Session* session) {
  CLI::App* command = app.add_subcommand("top", "Workers and running sweeps, live");
  command->footer("On a terminal until Ctrl-C; in a pipe a line a second.");
  const auto options = std::make_shared<TopOptions>();
  command->add_option("--interval", options->interval_s, "Seconds between two pictures")
      ->check(CLI::Range(0.1, 3600.0))
      ->type_name("SECONDS")
      ->capture_default_str();
  command->add_option("-n,--count", options->count, "End after so many pictures; 0 is never")
      ->check(NotNegative())
      ->type_name("N")
      ->capture_default_str();
  AddCoordinatorOption(command, session);
  AddJsonOption(command, session);
  SetAction(command, session, [=] { return Top(*session, *options); });
}

}  // namespace assay::cli
