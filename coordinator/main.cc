// assay-coordinator: flags, wiring, signals; nothing else.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/exit_codes.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status.h"
#include "base/version.h"
#include "coordinator/api/server.h"

namespace assay::coordinator {
namespace {

absl::StatusOr<absl::Duration> ParseSpan(const char* flag, const std::string& text) {
  absl::Duration span;
  if (absl::ParseDuration(text, &span) && span >= absl::Milliseconds(100) &&
      span <= absl::Hours(24)) {
    return span;
  }
  return InvalidArgument("{} {}: a span such as 5s or 2m, from 100ms to 24h", flag, text);
}

// SIGTERM and SIGINT are taken by the main thread alone; every other thread inherits the mask.
sigset_t BlockStopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

absl::Status Serve(Server::Options options, const std::string& port_file) {
  const sigset_t signals = BlockStopSignals();
  ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<Server> server,
                         Server::Start(std::move(options), RealClock::Get()));
  if (!port_file.empty()) {
    ASSAY_RETURN_IF_ERROR(WriteFileAtomically(port_file, fmt::format("{}\n", server->port())));
  }
  spdlog::info("assay-coordinator {} serves on port {}", Version(), server->port());
  int received = 0;
  sigwait(&signals, &received);
  spdlog::info("stopping on signal {}", received);
  server->Stop();
  spdlog::info("stopped");
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Server::Options options;
  std::string port_file;
  std::string heartbeat_interval = "5s";
  std::string lease_ttl = "60s";
  std::string log_level = "info";
  CLI::App app("The coordinator: plans sweeps, leases their units to workers, stores the answers.",
               "assay-coordinator");
  app.set_version_flag("--version", Version());
  app.add_option("--data", options.data_dir, "Folder of the database and the artifacts")
      ->required();
  app.add_option("--listen", options.listen, "HOST:PORT; port 0 lets the kernel choose")
      ->capture_default_str();
  app.add_option("--port-file", port_file, "Write the bound port here when serving");
  app.add_option("--models", options.roots.models, "Folders in which models are found by name");
  app.add_option("--benchmarks", options.roots.benchmarks, "Folders of benchmark files");
  app.add_option("--calibration", options.roots.calibration, "Folders of calibration sets");
  app.add_option("--heartbeat-interval", heartbeat_interval, "How often workers report")
      ->capture_default_str();
  app.add_option("--lease-ttl", lease_ttl, "A lease without a new token for so long expires")
      ->capture_default_str();
  app.add_option("--log-level", log_level, "trace, debug, info, warn or error")
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  InitLogging("assay-coordinator", log_level);
  const auto serve = [&]() -> absl::Status {
    ASSAY_ASSIGN_OR_RETURN(options.control.heartbeat_interval,
                           ParseSpan("--heartbeat-interval", heartbeat_interval));
    ASSAY_ASSIGN_OR_RETURN(options.control.lease_ttl, ParseSpan("--lease-ttl", lease_ttl));
    return Serve(options, port_file);
  };
  const absl::Status status = serve();
  if (status.ok()) return kExitOk;
  fmt::print(stderr, "assay-coordinator: {}\n", Message(status));
  return ExitCode(status);
}

}  // namespace
}  // namespace assay::coordinator

int main(int argc, char** argv) { return assay::coordinator::Main(argc, argv); }
