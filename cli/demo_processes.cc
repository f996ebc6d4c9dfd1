#include "cli/demo_processes.h"

#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "base/clock.h"
#include "base/file.h"
#include "base/status.h"
#include "cli/interrupt.h"
#include "cli/output/text.h"
#include "cli/session.h"

namespace assay::cli {
namespace {

// A database of an earlier run is checked before it is served.
constexpr absl::Duration kStartPatience = absl::Seconds(60);
constexpr absl::Duration kPoll = absl::Milliseconds(10);
constexpr size_t kLogLinesShown = 15;
constexpr size_t kMaxPathBytes = 4096;

std::vector<std::string> LastLines(const std::string& path) {
  std::vector<std::string> lines;
  std::istringstream text(ReadFile(path).value_or(""));
  for (std::string line; std::getline(text, line);) lines.push_back(SanitizeLine(line));
  if (lines.size() > kLogLinesShown) {
    lines.erase(lines.begin(), lines.end() - static_cast<ptrdiff_t>(kLogLinesShown));
  }
  return lines;
}

}  // namespace

absl::StatusOr<DemoProcesses::Process> DemoProcesses::Spawn(const std::string& data,
                                                            const std::string& program,
                                                            std::vector<std::string> arguments) {
  Process spawned{program, data + "/" + program + ".log", nullptr};
  const std::string path = ProgramDirectory() + "/" + program;
  if (::access(path.c_str(), X_OK) != 0) {
    return NotFound("{}: the demo needs this program beside assay; build or install {}", path,
                    program);
  }
  arguments.insert(arguments.begin(), path);
  // A group of its own: Ctrl-C reaches this program, which then stops the others in order.
  ASSAY_ASSIGN_OR_RETURN(spawned.process, Subprocess::Start({.argv = std::move(arguments),
                                                             .stderr_path = spawned.log,
                                                             .stdout_path = spawned.log,
                                                             .own_process_group = true}));
  return spawned;
}

absl::StatusOr<std::unique_ptr<DemoProcesses>> DemoProcesses::Start(const Options& options) {
  std::unique_ptr<DemoProcesses> demo(new DemoProcesses());
  const std::string port_file = options.data + "/port";
  std::error_code ignored;
  std::filesystem::remove(port_file, ignored);  // of an earlier run
  ASSAY_ASSIGN_OR_RETURN(Process coordinator,
                         Spawn(options.data, "assay-coordinator",
                               {"--data", options.data, "--listen", "127.0.0.1:0", "--port-file",
                                port_file, "--models", options.examples + "/models", "--benchmarks",
                                options.examples + "/benchmarks", "--calibration",
                                options.examples + "/calibration"}));
  demo->processes_.push_back(std::move(coordinator));
  ASSAY_RETURN_IF_ERROR(demo->AwaitPort(port_file));
  ASSAY_ASSIGN_OR_RETURN(
      Process worker,
      Spawn(
          options.data, "assay-worker",
          {"--coordinator", demo->address_, "--models", options.examples + "/models", "--artifacts",
           options.data + "/worker/artifacts", "--spool", options.data + "/worker/spool",
           "--worker-id", "demo", options.on_gpu ? "--gpus" : "--slots",
           options.on_gpu ? "0" : fmt::format("{}", options.num_slots)}));
  demo->processes_.push_back(std::move(worker));
  return demo;
}

absl::Status DemoProcesses::AwaitPort(const std::string& port_file) {
  const Clock* clock = RealClock::Get();
  const absl::Duration started = clock->Monotonic();
  while (true) {
    const auto text = ReadFile(port_file, kMaxPathBytes);
    const int port = text.ok() ? std::atoi(text->c_str()) : 0;
    if (port > 0) {
      address_ = fmt::format("127.0.0.1:{}", port);
      return absl::OkStatus();
    }
    const absl::Status status = Check();
    if (!status.ok()) {
      ShowLastLines();
      return status;
    }
    if (clock->Monotonic() - started > kStartPatience) {
      return DeadlineExceeded("assay-coordinator does not serve yet; its log is {}",
                              processes_.front().log);
    }
    if (WaitForInterrupt(kPoll)) return Cancelled("interrupted");
  }
}

DemoProcesses::~DemoProcesses() { Stop(absl::Seconds(2), true); }

absl::Status DemoProcesses::Check() {
  for (Process& p : processes_) {
    if (p.process->running()) continue;
    const int status = p.process->Wait(absl::ZeroDuration()).value_or(0);
    return Internal("{} ended with {}; its log is {}", p.name, DescribeWaitStatus(status), p.log);
  }
  return absl::OkStatus();
}

void DemoProcesses::ShowLastLines() {
  for (Process& p : processes_) {
    if (p.process->running()) continue;
    Say("the last lines of {}:", p.log);
    for (const std::string& line : LastLines(p.log)) Say("  {}", line);
  }
}

void DemoProcesses::Stop(absl::Duration grace, bool hurry) {
  while (!processes_.empty()) {
    Process& last = processes_.back();
    // A second SIGTERM tells a worker to drop its leases; a coordinator takes it as the first.
    if (hurry) {
      last.process->Signal(SIGTERM);
      last.process->Wait(absl::Milliseconds(50));
    }
    last.process->Stop(grace);
    processes_.pop_back();
  }
}

}  // namespace assay::cli
