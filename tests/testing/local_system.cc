#include "tests/testing/local_system.h"

#include <absl/time/clock.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "base/file.h"
#include "base/status.h"
#include "tests/testing/paths.h"
#include "tests/testing/patience.h"

namespace assay::testing {
namespace {

namespace fs = std::filesystem;

std::string ReadAll(int fd) {
  std::string text;
  char buffer[1 << 14];
  ssize_t n;
  while ((n = ::read(fd, buffer, sizeof buffer)) > 0) text.append(buffer, static_cast<size_t>(n));
  return text;
}

std::vector<pid_t> ChildrenOf(pid_t parent) {
  std::vector<pid_t> children;
  std::ifstream file(fmt::format("/proc/{}/task/{}/children", parent, parent));
  pid_t pid;
  while (file >> pid) children.push_back(pid);
  if (!children.empty()) return children;
  // The runner may have been forked by another thread of the worker.
  std::error_code ignored;
  for (const auto& task : fs::directory_iterator(fmt::format("/proc/{}/task", parent), ignored)) {
    std::ifstream more(task.path() / "children");
    while (more >> pid) children.push_back(pid);
  }
  return children;
}

std::string CommandLineOf(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/cmdline", pid), std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

void Append(std::vector<std::string>& argv, const std::string& flag,
            const std::vector<std::string>& values) {
  for (const std::string& value : values) {
    argv.push_back(flag);
    argv.push_back(value);
  }
}

}  // namespace

CommandResult RunProgram(const std::vector<std::string>& argv, const std::string& input,
                         const std::vector<std::string>& environment) {
  const TemporaryDirectory directory;
  CommandResult result;
  auto process = Subprocess::Start({.argv = argv,
                                    .environment = environment,
                                    .pipe_stdin = true,
                                    .pipe_stdout = true,
                                    .stderr_path = directory / "stderr"});
  if (!process.ok()) {
    result.err = Message(process.status());
    return result;
  }
  std::thread writer([&] {
    size_t written = 0;
    while (written < input.size()) {
      const ssize_t n =
          ::write((*process)->stdin_fd(), input.data() + written, input.size() - written);
      if (n <= 0) break;
      written += static_cast<size_t>(n);
    }
    (*process)->CloseStdin();
  });
  result.out = ReadAll((*process)->stdout_fd());
  writer.join();
  const int status = (*process)->Wait(absl::InfiniteDuration()).value_or(-1);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.err = ReadFile(directory / "stderr").value_or("");
  return result;
}

bool WaitUntil(const std::function<bool()>& condition, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout * kPatience;
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(20));
  }
  return true;
}

LocalSystem::LocalSystem(Options options) : options_(std::move(options)) {
  // Writing to a program that died must be an error of the write, not the end of the test.
  ::signal(SIGPIPE, SIG_IGN);
  if (options_.model_roots.empty()) options_.model_roots = {SourcePath("examples/models")};
  if (options_.benchmark_roots.empty()) {
    options_.benchmark_roots = {SourcePath("examples/benchmarks")};
  }
  if (options_.calibration_roots.empty()) {
    options_.calibration_roots = {SourcePath("examples/calibration")};
  }
}

LocalSystem::~LocalSystem() {
  workers_.clear();
  coordinator_.reset();
}

absl::Status LocalSystem::StartCoordinator() {
  const std::string port_file = options_.directory + "/port";
  fs::remove(port_file);
  std::vector<std::string> argv = {BinaryPath("assay-coordinator"),
                                   "--data",
                                   options_.directory + "/data",
                                   "--listen",
                                   fmt::format("127.0.0.1:{}", port_),
                                   "--port-file",
                                   port_file};
  Append(argv, "--models", options_.model_roots);
  Append(argv, "--benchmarks", options_.benchmark_roots);
  Append(argv, "--calibration", options_.calibration_roots);
  argv.insert(argv.end(), options_.coordinator_flags.begin(), options_.coordinator_flags.end());
  ASSAY_ASSIGN_OR_RETURN(
      coordinator_, Subprocess::Start({.argv = argv,
                                       .stderr_path = options_.directory + "/coordinator.log",
                                       .stdout_path = options_.directory + "/coordinator.log"}));
  const bool serving = WaitUntil(
      [&] {
        const auto text = ReadFile(port_file);
        if (text.ok() && !text->empty() && text->back() == '\n') port_ = std::atoi(text->c_str());
        return (text.ok() && !text->empty() && port_ > 0) || !coordinator_->running();
      },
      absl::Seconds(60));
  if (!serving || !coordinator_->running()) {
    return Unavailable("the coordinator does not serve\n{}", Logs());
  }
  return absl::OkStatus();
}

absl::Status LocalSystem::StartWorker(const std::string& worker_id, int num_slots) {
  std::vector<std::string> argv = {BinaryPath("assay-worker"),
                                   "--coordinator",
                                   address(),
                                   "--worker-id",
                                   worker_id,
                                   "--slots",
                                   fmt::format("{}", num_slots),
                                   "--artifacts",
                                   options_.directory + "/" + worker_id + "/artifacts",
                                   "--spool",
                                   options_.directory + "/" + worker_id + "/spool"};
  Append(argv, "--models", options_.model_roots);
  argv.insert(argv.end(), options_.worker_flags.begin(), options_.worker_flags.end());
  ASSAY_RETURN_IF_ERROR(MakeDirectories(options_.directory + "/" + worker_id));
  const std::string log = options_.directory + "/" + worker_id + ".log";
  ASSAY_ASSIGN_OR_RETURN(auto process,
                         Subprocess::Start({.argv = argv, .stderr_path = log, .stdout_path = log}));
  if (Worker* known = Find(worker_id)) {
    known->process = std::move(process);
  } else {
    workers_.push_back({worker_id, num_slots, std::move(process)});
  }
  return absl::OkStatus();
}

void LocalSystem::KillCoordinator() {
  coordinator_->Signal(SIGKILL);
  coordinator_->Wait(absl::InfiniteDuration());
}

void LocalSystem::KillWorker(const std::string& worker_id) {
  Worker* worker = Find(worker_id);
  worker->process->Signal(SIGKILL);
  worker->process->Wait(absl::InfiniteDuration());
}

bool LocalSystem::KillARunner(const std::string& worker_id) {
  for (const pid_t pid : ChildrenOf(Find(worker_id)->process->pid())) {
    if (CommandLineOf(pid).find("assay-runner") == std::string::npos) continue;
    return ::kill(pid, SIGKILL) == 0;
  }
  return false;
}

int LocalSystem::StopWorker(const std::string& worker_id, absl::Duration timeout) {
  Worker* worker = Find(worker_id);
  worker->process->Signal(SIGTERM);
  return worker->process->Wait(timeout).value_or(-1);
}

int LocalSystem::StopCoordinator(absl::Duration timeout) {
  coordinator_->Signal(SIGTERM);
  return coordinator_->Wait(timeout).value_or(-1);
}

CommandResult LocalSystem::Assay(std::vector<std::string> args, const std::string& input) const {
  args.insert(args.begin(), BinaryPath("assay"));
  return RunProgram(args, input, {"ASSAY_COORDINATOR=" + address(), "NO_COLOR=1"});
}

absl::StatusOr<std::string> LocalSystem::Submit(const std::string& spec_yaml) {
  const std::string path = options_.directory + "/spec.yaml";
  ASSAY_RETURN_IF_ERROR(WriteFileAtomically(path, spec_yaml));
  const CommandResult result = Assay({"sweep", "submit", path});
  if (result.exit_code != 0) {
    return InvalidArgument("submit ended with {}: {}", result.exit_code, result.err);
  }
  return result.out.substr(0, result.out.find('\n'));
}

int64_t LocalSystem::NumSamples() const {
  const CommandResult result =
      Assay({"query", "SELECT count(*) AS n FROM sample", "--db", database(), "-o", "json"});
  const auto rows = nlohmann::json::parse(result.out, nullptr, false);
  if (result.exit_code != 0 || !rows.is_array() || rows.empty()) return 0;
  return rows[0].value("n", int64_t{0});
}

std::vector<std::string> LocalSystem::SampleFingerprints() const {
  const CommandResult result = Assay(
      {"query",
       "SELECT cell.key || ' ' || sample.item_index || ' ' || sample.repeat || ' ' || sample.seed"
       " || ' ' || sample.prompt_tokens || ' ' || sample.completion_tokens"
       " || ' ' || sample.finish_reason || ' ' || grade.verdict || ' ' || hex(grade.extracted)"
       " || ' ' || hex(sample_text.token_ids) AS line"
       " FROM sample JOIN cell ON cell.id = sample.cell_id"
       " JOIN sample_text ON sample_text.sample_id = sample.id"
       " JOIN grade ON grade.sample_id = sample.id"
       " ORDER BY cell.key, sample.item_index, sample.repeat",
       "--db", database(), "-o", "csv", "--max-rows", "1000000"});
  ASSAY_CHECK(result.exit_code == 0, "{}", result.err);
  std::vector<std::string> lines;
  std::istringstream text(result.out);
  std::string line;
  std::getline(text, line);  // the header
  while (std::getline(text, line)) lines.push_back(line);
  return lines;
}

bool LocalSystem::SweepSettled(const std::string& sweep_id) const {
  const CommandResult result = Assay({"sweep", "show", sweep_id, "--json"});
  const auto sweep = nlohmann::json::parse(result.out, nullptr, false);
  if (!sweep.is_object()) return false;
  const std::string state = sweep.value("state", "");
  return state == "done" || state == "failed" || state == "cancelled";
}

std::string LocalSystem::address() const { return fmt::format("127.0.0.1:{}", port_); }

std::string LocalSystem::Logs() const {
  std::string text;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(options_.directory, ignored)) {
    if (entry.path().extension() != ".log") continue;
    const std::string log = ReadFile(entry.path().string()).value_or("");
    text += fmt::format("--- {}\n{}\n", entry.path().filename().string(),
                        log.size() > 4000 ? log.substr(log.size() - 4000) : log);
  }
  return text;
}

LocalSystem::Worker* LocalSystem::Find(const std::string& worker_id) {
  for (Worker& worker : workers_) {
    if (worker.id == worker_id) return &worker;
  }
  return nullptr;
}

}  // namespace assay::testing
