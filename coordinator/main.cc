// assay-coordinator: flags, wiring, signals; nothing else.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/exit_codes.h"
#include "base/file.h"
#include "base/flag_checks.h"
#include "base/log.h"
#include "base/status.h"
#include "base/usage_error.h"
#include "base/version.h"
#include "coordinator/api/query_process.h"
#include "coordinator/api/server.h"
#include "coordinator/auth/token_book.h"
#include "storage/stores/control_store.h"

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
    std::string ports = fmt::format("{}\n", server->port());
    if (server->metrics_port() != 0) ports += fmt::format("{}\n", server->metrics_port());
    ASSAY_RETURN_IF_ERROR(WriteFileAtomically(port_file, ports));
  }
  spdlog::info("assay-coordinator {} serves on port {}", Version(), server->port());
  int received = 0;
  sigwait(&signals, &received);
  spdlog::info("stopping on signal {}", received);
  server->Stop();
  spdlog::info("stopped");
  return absl::OkStatus();
}

struct TokenFlags {
  std::string name = "admin";
  std::string role = "admin";
};

// assay-coordinator token create: the way to the first token. Returns `create`.
const CLI::App* AddTokenCommand(CLI::App* app, TokenFlags* flags) {
  CLI::App* token = app->add_subcommand("token", "Tokens of people, while no coordinator runs");
  token->require_subcommand(1);
  token->fallthrough();
  CLI::App* create = token->add_subcommand("create", "Make a token and print it, once");
  create->fallthrough();
  create->add_option("--name", flags->name, "Whose it is")->capture_default_str();
  create->add_option("--role", flags->role, "viewer, submitter or admin")->capture_default_str();
  return create;
}

absl::Status CreateToken(const std::string& data_dir, const TokenFlags& flags) {
  ASSAY_ASSIGN_OR_RETURN(const Role role, ParseRole(flags.role));
  ASSAY_ASSIGN_OR_RETURN(const NewToken made,
                         MakeToken(flags.name, role, RealClock::Get()->NowMicros()));
  ASSAY_RETURN_IF_ERROR(MakeDirectories(data_dir));
  ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<storage::ControlStore> store,
                         storage::ControlStore::Open(data_dir + "/assay.db"));
  ASSAY_RETURN_IF_ERROR(store->Begin());
  ASSAY_RETURN_IF_ERROR(store->InsertToken(made.record));
  ASSAY_RETURN_IF_ERROR(store->Commit());
  fmt::print("{}\n", made.text);
  if (std::fflush(stdout) != 0) return Unavailable("cannot write the token to stdout");
  fmt::print(stderr, "token {} for {}, role {}: keep it, it is not shown again\n",
             made.record.token_id, flags.name, flags.role);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Server::Options options;
  std::string port_file;
  std::string heartbeat_interval = "5s";
  std::string lease_ttl = "60s";
  std::string log_level = "info";
  std::string log_format = "text";
  CLI::App app("The coordinator: plans sweeps, leases their units to workers, stores the answers.",
               "assay-coordinator");
  app.set_version_flag("--version", Version());
  app.add_option("--data", options.data_dir, "Folder of the database and the artifacts")
      ->required();
  app.add_option("--listen", options.listen, "HOST:PORT; port 0 lets the kernel choose")
      ->capture_default_str();
  app.add_option("--port-file", port_file,
                 "Write the bound port here when serving, and on a second line that of --metrics");
  app.add_option("--metrics", options.metrics_listen,
                 "127.0.0.1:PORT of /metrics (Prometheus) and /healthz; port 0 lets the kernel "
                 "choose");
  app.add_option("--models", options.roots.models, "Folders in which models are found by name");
  app.add_option("--benchmarks", options.roots.benchmarks, "Folders of benchmark files");
  app.add_option("--calibration", options.roots.calibration, "Folders of calibration sets");
  app.add_option("--heartbeat-interval", heartbeat_interval, "How often workers report")
      ->capture_default_str();
  app.add_option("--lease-ttl", lease_ttl, "A lease without a new token for so long expires")
      ->capture_default_str();
  app.add_option("--tls-cert", options.tls.cert,
                 "Certificate of this host (PEM); see deploy/certs.sh");
  app.add_option("--tls-key", options.tls.key, "Its key, readable by nobody else");
  app.add_option("--tls-ca", options.tls.ca, "Authority that signs the certificates of workers");
  app.add_option("--max-calls-per-second", options.max_calls_per_s,
                 "Of one worker, person or connection; 0 is no limit")
      ->check(NotNegative())
      ->capture_default_str();
  app.add_option("--log-level", log_level, "trace, debug, info, warn or error")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error"}))
      ->capture_default_str();
  app.add_option("--log-format", log_format, "text, or json: an object a line")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  TokenFlags token;
  const CLI::App* create_token = AddTokenCommand(&app, &token);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return EndParsing(app, error, argc, argv);
  }
  ::signal(SIGXFSZ, SIG_IGN);  // a file size limit is a full disk, not the end
  ::signal(SIGPIPE, SIG_IGN);  // nor is a query's process that dies before it has its request
  InitLogging("assay-coordinator", log_level,
              log_format == "json" ? LogFormat::kJson : LogFormat::kText);
  const auto serve = [&]() -> absl::Status {
    ASSAY_ASSIGN_OR_RETURN(options.control.heartbeat_interval,
                           ParseSpan("--heartbeat-interval", heartbeat_interval));
    ASSAY_ASSIGN_OR_RETURN(options.control.lease_ttl, ParseSpan("--lease-ttl", lease_ttl));
    return Serve(options, port_file);
  };
  const absl::Status status =
      create_token->parsed() ? CreateToken(options.data_dir, token) : serve();
  if (status.ok()) return kExitOk;
  fmt::print(stderr, "assay-coordinator: {}\n", Message(status));
  return ExitCode(status);
}

}  // namespace
}  // namespace assay::coordinator

int main(int argc, char** argv) {
  // Not a verb of people: the coordinator starts itself so.
  if (argc == 3 && std::string_view(argv[1]) == assay::coordinator::kAnswerQueryVerb) {
    return assay::coordinator::AnswerQuery(argv[2]);
  }
  return assay::coordinator::Main(argc, argv);
}
