#include "tests/chaos/chaos_system.h"

#include <absl/time/clock.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "base/file.h"
#include "base/status.h"
#include "storage/sqlite/connection.h"
#include "tests/testing/paths.h"

namespace assay::chaos {
namespace {

namespace fs = std::filesystem;
using testing::BinaryPath;
using testing::CommandResult;
using testing::SourcePath;

constexpr int64_t kStoreDiskBytes = int64_t{64} << 20;
constexpr int64_t kSpoolDiskBytes = int64_t{8} << 20;
constexpr absl::Duration kPatience = absl::Minutes(2);
constexpr absl::Duration kRestartDelay = absl::Milliseconds(500);

// A free port that no outgoing connection gets: one in the kernel's range could connect to itself
// while nobody listens, and take the port away.
absl::StatusOr<int> FindPort() {
  constexpr int kFirst = 20'000;
  constexpr int kCount = 10'000;
  for (int i = 0; i < kCount; ++i) {
    const int port = kFirst + (static_cast<int>(::getpid()) * 31 + i) % kCount;
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_ANY);
    address.sin_port = htons(static_cast<uint16_t>(port));
    const int bound = ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
    ::close(fd);
    if (bound == 0) return port;
  }
  return Unavailable("no free port");
}

// GET /metrics of a port on loopback; empty when nobody answers.
std::string Scrape(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval patience = {5, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  std::string text;
  constexpr std::string_view kRequest =
      "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
      ::send(fd, kRequest.data(), kRequest.size(), MSG_NOSIGNAL) > 0) {
    char buffer[1 << 14];
    ssize_t n = 0;
    while ((n = ::recv(fd, buffer, sizeof buffer, 0)) > 0) {
      text.append(buffer, static_cast<size_t>(n));
    }
  }
  ::close(fd);
  return text;
}

void Append(std::vector<std::string>* to, const std::vector<std::string>& more) {
  to->insert(to->end(), more.begin(), more.end());
}

}  // namespace

Means Means::Find() {
  Means means;
  means.no_clock_steps = WhyNoShiftedClocks();
  if (const absl::Status own = OwnMounts(); !own.ok()) means.no_mounts = Message(own);
  auto network = NetworkNamespace::Create();
  if (!network.ok()) {
    means.no_namespaces = Message(network.status());
    means.no_degrading = means.no_namespaces;
  } else if (const absl::Status degraded = (*network)->Degrade(absl::Milliseconds(1), 0);
             !degraded.ok()) {
    means.no_degrading = Message(degraded);
  }
  return means;
}

absl::StatusOr<std::unique_ptr<ChaosSystem>> ChaosSystem::Start(const std::string& directory,
                                                                const Means& means) {
  // Writing to a program that died must be an error of the write, not the end of the test.
  ::signal(SIGPIPE, SIG_IGN);
  std::unique_ptr<ChaosSystem> system(new ChaosSystem(directory));
  ASSAY_RETURN_IF_ERROR(system->MakeParts(means));
  ASSAY_RETURN_IF_ERROR(system->DescribePrograms(means));
  ASSAY_RETURN_IF_ERROR(system->StartProgram(&system->coordinator_));
  if (!system->WaitUntilServing()) {
    return Unavailable("the coordinator does not serve\n{}", system->Logs());
  }
  for (Program& worker : system->workers_) {
    ASSAY_RETURN_IF_ERROR(system->StartProgram(&worker));
  }
  return system;
}

ChaosSystem::~ChaosSystem() {
  workers_.clear();
  coordinator_.process.reset();
}

absl::Status ChaosSystem::MakeParts(const Means& means) {
  ASSAY_ASSIGN_OR_RETURN(port_, FindPort());
  if (means.no_namespaces.empty()) {
    ASSAY_ASSIGN_OR_RETURN(network_, NetworkNamespace::Create());
  }
  const bool can_mount = means.no_mounts.empty();
  if (can_mount) {
    ASSAY_ASSIGN_OR_RETURN(store_disk_, SmallDisk::Mount(directory_ + "/data", kStoreDiskBytes));
  }
  ASSAY_ASSIGN_OR_RETURN(coordinator_clock_, ShiftedClock::Create(directory_ + "/clock"));
  for (int i = 0; i < kNumWorkers; ++i) {
    const std::string home = fmt::format("{}/w{}", directory_, i + 1);
    ASSAY_RETURN_IF_ERROR(MakeDirectories(home));
    spool_disks_.emplace_back();
    if (can_mount) {
      ASSAY_ASSIGN_OR_RETURN(spool_disks_.back(),
                             SmallDisk::Mount(home + "/spool", kSpoolDiskBytes));
    }
    worker_clocks_.emplace_back();
    ASSAY_ASSIGN_OR_RETURN(worker_clocks_.back(), ShiftedClock::Create(home + "/clock"));
    proxies_.emplace_back();
    ASSAY_ASSIGN_OR_RETURN(proxies_.back(), testing::TcpProxy::Start(port_));
  }
  const CommandResult made = testing::RunProgram(
      {BinaryPath("assay-coordinator"), "token", "create", "--data", directory_ + "/data"});
  if (made.exit_code != 0) return Unavailable("token create: {}", made.err);
  token_ = made.out.substr(0, made.out.find('\n'));
  return absl::OkStatus();
}

absl::Status ChaosSystem::DescribePrograms(const Means& means) {
  std::string names = "localhost,127.0.0.1";
  if (network_ != nullptr) names += "," + network_->host_address();
  certificates_ = std::make_unique<testing::Certificates>(directory_ + "/certs", names);
  liar_certificate_ = certificates_->MakeWorker("liar");
  const auto tls = [this](const std::string& certificate) {
    return std::vector<std::string>{"--tls-ca",   certificates_->ca(),
                                    "--tls-cert", certificate,
                                    "--tls-key",  testing::Certificates::KeyOf(certificate)};
  };
  const bool shift_clocks = means.no_clock_steps.empty();

  coordinator_.name = "coordinator";
  coordinator_.log = directory_ + "/coordinator.log";
  coordinator_.argv = {BinaryPath("assay-coordinator"),
                       "--data",
                       directory_ + "/data",
                       "--listen",
                       fmt::format("{}:{}", network_ ? "0.0.0.0" : "127.0.0.1", port_),
                       "--port-file",
                       directory_ + "/port",
                       "--metrics",
                       "127.0.0.1:0",
                       "--models",
                       SourcePath("examples/models"),
                       "--benchmarks",
                       SourcePath("examples/benchmarks"),
                       "--calibration",
                       SourcePath("examples/calibration"),
                       "--heartbeat-interval",
                       "200ms",
                       "--lease-ttl",
                       absl::FormatDuration(kLeaseTtl)};
  Append(&coordinator_.argv, tls(certificates_->server()));
  if (shift_clocks) coordinator_.environment = coordinator_clock_->Environment();

  for (int i = 0; i < kNumWorkers; ++i) {
    const std::string id = fmt::format("w{}", i + 1);
    const std::string home = directory_ + "/" + id;
    Program& worker = workers_.emplace_back();
    worker.name = "worker " + id;
    worker.log = directory_ + "/" + id + ".log";
    const std::string dials =
        behind_proxy(i) ? fmt::format("127.0.0.1:{}", proxies_[static_cast<size_t>(i)]->port())
                        : fmt::format("{}:{}", network_->host_address(), port_);
    if (!behind_proxy(i)) worker.argv = network_->Enter();
    // Few lanes, for a crash of a runner has every unit it ran go alone next time; short timeouts,
    // for stopped children must be found within the test.
    Append(&worker.argv, {BinaryPath("assay-worker"),
                          "--coordinator",
                          dials,
                          "--worker-id",
                          id,
                          "--slots",
                          "1",
                          "--models",
                          SourcePath("examples/models"),
                          "--artifacts",
                          home + "/artifacts",
                          "--spool",
                          home + "/spool",
                          "--max-num-seqs",
                          "16",
                          "--stuck-timeout",
                          "6",
                          "--load-timeout",
                          "20",
                          "--grader-timeout",
                          "3"});
    Append(&worker.argv, tls(certificates_->MakeWorker(id)));
    if (shift_clocks) worker.environment = worker_clock(i).Environment();
  }
  return absl::OkStatus();
}

absl::Status ChaosSystem::StartProgram(Program* program) {
  if (program == &coordinator_) fs::remove(directory_ + "/port");
  ASSAY_ASSIGN_OR_RETURN(program->process, Subprocess::Start({.argv = program->argv,
                                                              .environment = program->environment,
                                                              .stderr_path = program->log,
                                                              .stdout_path = program->log}));
  program->may_fail = program->disk_is_full;
  return absl::OkStatus();
}

bool ChaosSystem::coordinator_serves() const { return fs::exists(directory_ + "/port"); }

bool ChaosSystem::WaitUntilServing() {
  return testing::WaitUntil(
             [this] { return coordinator_serves() || !coordinator_.process->running(); },
             kPatience) &&
         coordinator_.process->running();
}

absl::StatusOr<std::string> ChaosSystem::Submit(const std::string& spec_yaml) {
  const std::string path = directory_ + "/spec.yaml";
  ASSAY_RETURN_IF_ERROR(WriteFileAtomically(path, spec_yaml));
  const CommandResult result =
      testing::RunProgram({BinaryPath("assay"), "sweep", "submit", path}, "",
                          {"ASSAY_COORDINATOR=" + address(), "ASSAY_TLS_CA=" + certificates_->ca(),
                           "ASSAY_TOKEN=" + token_, "NO_COLOR=1"});
  if (result.exit_code != 0) {
    return InvalidArgument("submit ended with {}: {}", result.exit_code, result.err);
  }
  return result.out.substr(0, result.out.find('\n'));
}

absl::Status ChaosSystem::Supervise() {
  std::vector<Program*> programs = {&coordinator_};
  for (Program& worker : workers_) programs.push_back(&worker);
  for (Program* program : programs) {
    if (program->process != nullptr && !program->process->running()) {
      const int status = program->process->Wait(absl::InfiniteDuration()).value_or(-1);
      if (!program->may_fail) {
        return Internal("{} ended by itself: {}\n{}", program->name, DescribeWaitStatus(status),
                        Logs());
      }
      program->process.reset();
      program->start_at = absl::Now() + kRestartDelay;
    }
    if (program->process == nullptr && absl::Now() >= program->start_at) {
      ASSAY_RETURN_IF_ERROR(StartProgram(program));
    }
  }
  return absl::OkStatus();
}

bool ChaosSystem::Kill(Program* program, absl::Duration down) {
  if (program->process == nullptr || !program->process->running()) return false;
  program->process->Signal(SIGKILL);
  program->process->Wait(absl::InfiniteDuration());
  program->process.reset();
  program->start_at = absl::Now() + down;
  return true;
}

absl::Status ChaosSystem::StopCleanly() {
  for (size_t i = 0; i <= workers_.size(); ++i) {
    Program& program = i < workers_.size() ? workers_[i] : coordinator_;
    program.process->Signal(SIGTERM);
    const std::optional<int> status = program.process->Wait(kPatience);
    if (!status.has_value() || *status != 0) {
      return Internal("{} was to end well and {}\n{}", program.name,
                      status ? "ended with " + DescribeWaitStatus(*status) : "goes on", Logs());
    }
  }
  return absl::OkStatus();
}

int64_t ChaosSystem::QueryInteger(const std::string& sql) const {
  const auto connection = storage::sqlite::Connection::OpenReader(database());
  if (!connection.ok()) return -1;
  return (*connection)->QueryInteger(sql).value_or(-1);
}

double ChaosSystem::Metric(const std::string& series) const {
  const std::string ports = ReadFile(directory_ + "/port").value_or("");
  const size_t second_line = ports.find('\n');
  if (second_line == std::string::npos) return -1;
  const std::string text = Scrape(std::atoi(ports.c_str() + second_line + 1));
  const size_t found = text.find("\n" + series + " ");
  return found == std::string::npos ? -1 : std::atof(text.c_str() + found + series.size() + 2);
}

std::string ChaosSystem::Logs() const {
  constexpr size_t kShown = 6000;
  std::string text;
  std::vector<const Program*> programs = {&coordinator_};
  for (const Program& worker : workers_) programs.push_back(&worker);
  for (const Program* program : programs) {
    const std::string log = ReadFile(program->log).value_or("");
    text += fmt::format("--- {}\n{}\n", program->name,
                        log.size() > kShown ? log.substr(log.size() - kShown) : log);
  }
  return text;
}

}  // namespace assay::chaos
