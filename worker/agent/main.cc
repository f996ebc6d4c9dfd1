// assay-worker: flags, wiring, signals; nothing else.
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>
#include <thread>

#include "base/exit_codes.h"
#include "base/file.h"
#include "base/flag_checks.h"
#include "base/log.h"
#include "base/status.h"
#include "base/usage_error.h"
#include "base/version.h"
#include "worker/agent/agent.h"

namespace assay::worker {
namespace {

constexpr absl::Duration kSignalPoll = absl::Milliseconds(100);
constexpr int kLanesOfCpus = 64;
constexpr int kLanesOfGpus = 256;
constexpr int kMaxGraders = 4;

std::string Hostname() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "worker";
}

// Where a worker keeps what must outlive it: $XDG_STATE_HOME/assay/ID.
std::string StateDirectory(const std::string& worker_id) {
  if (const char* state = std::getenv("XDG_STATE_HOME"); state != nullptr && *state != '\0') {
    return std::string(state) + "/assay/" + worker_id;
  }
  const char* home = std::getenv("HOME");
  return std::string(home != nullptr && *home != '\0' ? home : "/var/tmp") +
         "/.local/state/assay/" + worker_id;
}

absl::Duration ToDuration(double seconds) { return absl::Seconds(seconds); }

absl::Status CheckProgram(const std::string& path, const char* flag) {
  if (::access(path.c_str(), X_OK) == 0) return absl::OkStatus();
  return NotFound("{}: not a program; give {} the path of one", path, flag);
}

// As the coordinator wants it, who uses it in logs, events and file names.
absl::Status CheckWorkerId(const std::string& id) {
  const bool plain = std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
  });
  if (!id.empty() && id.size() <= 64 && plain) return absl::OkStatus();
  return InvalidArgument("--worker-id '{}': 1 to 64 of A-Z a-z 0-9 . _ -", id);
}

struct Flags {
  std::string coordinator = "127.0.0.1:7350";
  std::string tls_ca;
  std::string tls_cert;
  std::string tls_key;
  std::vector<std::string> models;
  std::string artifacts;
  std::optional<int64_t> artifact_cache_bytes;
  std::string spool;
  std::string worker_id = Hostname();
  int num_slots = 0;  // 0: one, or with GPUs one a gang
  std::string gpus = "none";
  std::vector<int> gang_sizes;
  std::string runner = ProgramDirectory() + "/assay-runner";
  std::string grader = ProgramDirectory() + "/assay-grader";
  int threads_per_slot = 0;  // 0: one, or with GPUs a share of the cores
  int max_num_seqs = 0;      // 0: 64, or with GPUs 256
  int64_t memory_bytes = 0;
  double stuck_timeout_s = 120;
  double load_timeout_s = 1800;
  double grader_timeout_s = 2;
  double drain_grace_s = 30;
  std::string log_format = "text";
};

void AddFlags(CLI::App* app, Flags* flags) {
  app->add_option("--coordinator", flags->coordinator, "HOST:PORT")
      ->envname("ASSAY_COORDINATOR")
      ->capture_default_str();
  app->add_option("--tls-ca", flags->tls_ca, "authority that signs the coordinator's certificate");
  app->add_option("--tls-cert", flags->tls_cert, "this worker's certificate; names its worker id");
  app->add_option("--tls-key", flags->tls_key, "its key, readable by nobody else");
  app->add_option("--models", flags->models, "folders with models, by name")->required();
  app->add_option("--artifacts", flags->artifacts,
                  "folder of quantized models; may be shared by all");
  app->add_option(
         "--artifact-cache-bytes", flags->artifact_cache_bytes,
         "how much of them is kept, the longest unused going first; 0 is no bound (default "
         "half of the disk for a folder of its own, no bound with --artifacts)")
      ->check(NotNegative());
  app->add_option("--spool", flags->spool, "folder of samples on their way; one worker's own");
  app->add_option("--worker-id", flags->worker_id, "stable over restarts")->capture_default_str();
  CLI::Option* slots = app->add_option("--slots", flags->num_slots, "runners on a CPU (default 1)")
                           ->check(CLI::Range(1, 256));
  app->add_option("--gpus", flags->gpus,
                  "none: run on the CPU; all; or numbers or UUIDs as of nvidia-smi, as 0,1,2,3")
      ->excludes(slots)
      ->capture_default_str();
  app->add_option(
         "--tensor-parallel-size", flags->gang_sizes,
         "GPUs that one runner holds a model on (default 1); 4,2 is a gang of four and the "
         "rest in gangs of two")
      ->delimiter(',')
      ->check(CLI::Range(1, 64));
  app->add_option("--runner", flags->runner, "the program assay-runner");
  app->add_option("--grader", flags->grader, "the program assay-grader");
  app->add_option("--threads-per-slot", flags->threads_per_slot,
                  "threads of an engine on a CPU, and of quantizers (default 1; with GPUs a share "
                  "of the cores)")
      ->check(CLI::Range(1, 1024));
  app->add_option("--max-num-seqs", flags->max_num_seqs,
                  "sequences that a runner generates at once (default 64; with GPUs 256)")
      ->check(CLI::Range(1, 65536));
  app->add_option("--memory-bytes", flags->memory_bytes, "of a runner; 0 is unlimited")
      ->check(NotNegative());
  app->add_option("--stuck-timeout", flags->stuck_timeout_s,
                  "seconds without a token after which a runner is killed")
      ->check(Positive())
      ->capture_default_str();
  app->add_option("--load-timeout", flags->load_timeout_s, "seconds that loading may take")
      ->check(Positive())
      ->capture_default_str();
  app->add_option("--grader-timeout", flags->grader_timeout_s, "seconds for one verdict")
      ->check(Positive())
      ->capture_default_str();
  app->add_option("--drain-grace", flags->drain_grace_s,
                  "seconds that running units get after SIGTERM")
      ->check(NotNegative())
      ->capture_default_str();
  app->add_option("--log-format", flags->log_format,
                  "text, or json: an object a line; of runners and graders too")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
}

// The GPUs that the flags mean, in gangs; says so of those in use by others.
absl::Status AddGpus(const Flags& flags, Agent::Options* options) {
  if (flags.gpus == "none") {
    if (flags.gang_sizes.empty()) return absl::OkStatus();
    return InvalidArgument("--tensor-parallel-size needs GPUs: add --gpus all");
  }
  ASSAY_ASSIGN_OR_RETURN(options->gpus, GpuInventory::Open());
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  ASSAY_ASSIGN_OR_RETURN(
      const std::vector<Gpu> gpus,
      SelectGpus(flags.gpus, visible != nullptr ? visible : "", options->gpus->gpus()));
  ASSAY_ASSIGN_OR_RETURN(options->gangs, FormGangs(gpus, flags.gang_sizes));
  for (const Gpu& gpu : gpus) {
    const int64_t used = options->gpus->MemoryUsed(gpu).value_or(0);
    if (used > gpu.memory_bytes / 20) {
      spdlog::warn("GPU {}: {} MiB of {} are in use already", gpu.index, used >> 20,
                   gpu.memory_bytes >> 20);
    }
  }
  if (flags.threads_per_slot == 0) {
    const auto num_gangs = static_cast<unsigned>(options->gangs.size());
    options->slot.num_threads =
        static_cast<int>(std::max(1u, std::thread::hardware_concurrency() / num_gangs));
  }
  if (flags.max_num_seqs == 0) options->slot.max_num_seqs = kLanesOfGpus;
  options->graders.num_graders = kMaxGraders;
  return absl::OkStatus();
}

Agent::Options ToOptions(const Flags& flags) {
  const std::string state = StateDirectory(flags.worker_id);
  Agent::Options options;
  options.coordinator = flags.coordinator;
  options.worker_id = flags.worker_id;
  options.model_roots = flags.models;
  options.artifacts_dir = flags.artifacts.empty() ? state + "/artifacts" : flags.artifacts;
  options.max_artifact_bytes =
      flags.artifact_cache_bytes.value_or(flags.artifacts.empty() ? Agent::kHalfOfTheDisk : 0);
  options.spool.directory = flags.spool.empty() ? state + "/spool" : flags.spool;
  options.num_slots = std::max(flags.num_slots, 1);
  options.slot.runner.program = flags.runner;
  options.slot.num_threads = std::max(flags.threads_per_slot, 1);
  options.slot.max_num_seqs = flags.max_num_seqs > 0 ? flags.max_num_seqs : kLanesOfCpus;
  options.slot.memory_bytes = flags.memory_bytes;
  options.slot.stuck_timeout = ToDuration(flags.stuck_timeout_s);
  options.slot.load_timeout = ToDuration(flags.load_timeout_s);
  options.graders.program = flags.grader;
  options.graders.num_graders = std::min(options.num_slots, kMaxGraders);
  options.graders.timeout = ToDuration(flags.grader_timeout_s);
  return options;
}

sigset_t TerminationSignals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGTERM);
  ::sigaddset(&signals, SIGINT);
  return signals;
}

// Until the agent ends: the first signal drains it, the second stops it.
void WaitForTheEnd(Agent* agent, absl::Duration drain_grace) {
  const sigset_t signals = TerminationSignals();
  int num_signals = 0;
  while (!agent->finished()) {
    const struct timespec poll = absl::ToTimespec(kSignalPoll);
    if (::sigtimedwait(&signals, nullptr, &poll) < 0) continue;
    if (++num_signals == 1) {
      spdlog::info("draining: running units get {}; a second signal stops at once",
                   absl::FormatDuration(drain_grace));
      agent->Drain(drain_grace);
    } else {
      agent->Stop();
    }
  }
}

int Main(int argc, char** argv) {
  CLI::App app("Takes work from a coordinator, generates and grades.");
  app.name("assay-worker");
  app.set_version_flag("--version", Version());
  Flags flags;
  AddFlags(&app, &flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return EndParsing(app, error, argc, argv);
  }
  if (const absl::Status id = CheckWorkerId(flags.worker_id); !id.ok()) {
    std::cerr << "assay-worker: " << Message(id) << "\n";
    return kExitUsage;
  }
  InitLogging("assay-worker", "info",
              flags.log_format == "json" ? LogFormat::kJson : LogFormat::kText);
  // Before any thread starts, so that all inherit it and sigtimedwait alone gets the signals.
  const sigset_t signals = TerminationSignals();
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);  // a file size limit is a full disk, not the end

  for (const auto& [path, flag] :
       {std::pair(flags.runner, "--runner"), std::pair(flags.grader, "--grader")}) {
    const absl::Status program = CheckProgram(path, flag);
    if (!program.ok()) {
      std::cerr << "assay-worker: " << Message(program) << "\n";
      return ExitCode(program);
    }
  }
  absl::StatusOr<ClientTls> tls =
      ReadClientTls(flags.coordinator, flags.tls_ca, flags.tls_cert, flags.tls_key);
  if (!tls.ok()) {
    std::cerr << "assay-worker: " << Message(tls.status()) << "\n";
    return ExitCode(tls.status());
  }
  Agent::Options options = ToOptions(flags);
  options.tls = *std::move(tls);
  if (const absl::Status gpus = AddGpus(flags, &options); !gpus.ok()) {
    std::cerr << "assay-worker: " << Message(gpus) << "\n";
    return ExitCode(gpus);
  }
  for (size_t i = 0; i < options.gangs.size(); ++i) {
    spdlog::info("slot {}: {}, {}", i, options.gangs[i].name(), options.gangs[i].environment());
  }
  const size_t num_slots =
      options.gangs.empty() ? static_cast<size_t>(options.num_slots) : options.gangs.size();
  absl::StatusOr<std::unique_ptr<Agent>> agent = Agent::Start(std::move(options));
  if (!agent.ok()) {
    std::cerr << "assay-worker: " << Message(agent.status()) << "\n";
    return ExitCode(agent.status());
  }
  spdlog::info("worker {} with {} slots, incarnation {}", flags.worker_id, num_slots,
               (*agent)->incarnation());
  WaitForTheEnd(agent->get(), ToDuration(flags.drain_grace_s));
  const absl::Status status = (*agent)->end_status();
  agent->reset();
  if (status.ok()) return kExitOk;
  spdlog::error("{}", Message(status));
  return status.code() == absl::StatusCode::kCancelled ? kExitInterrupted : kExitFailure;
}

}  // namespace
}  // namespace assay::worker

int main(int argc, char** argv) { return assay::worker::Main(argc, argv); }
