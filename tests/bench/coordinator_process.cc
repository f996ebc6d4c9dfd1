#include "tests/bench/coordinator_process.h"

#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "assay/v1/sweep_service.grpc.pb.h"
#include "base/file.h"
#include "base/ids.h"
#include "tests/bench/bench_clock.h"

namespace assay::bench {
namespace {

int64_t StatusField(pid_t pid, const std::string& name) {
  std::ifstream file(fmt::format("/proc/{}/status", pid));
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with(name + ":")) {
      return std::stoll(line.substr(name.size() + 1)) * 1024;
    }
  }
  return 0;
}

}  // namespace

CoordinatorProcess::CoordinatorProcess(std::string dir, std::vector<std::string> flags)
    : dir_(std::move(dir)), flags_(std::move(flags)) {
  Must(MakeDirectories(dir_ + "/data"));
  Start();
}

double CoordinatorProcess::Start() {
  const std::string port_file = dir_ + "/port";
  std::filesystem::remove(port_file);
  std::vector<std::string> argv = {ASSAY_BIN_DIR "/assay-coordinator",
                                   "--data",
                                   dir_ + "/data",
                                   "--listen",
                                   "127.0.0.1:0",
                                   "--port-file",
                                   port_file,
                                   "--models",
                                   ASSAY_SOURCE_DIR "/examples/models",
                                   "--benchmarks",
                                   ASSAY_SOURCE_DIR "/examples/benchmarks"};
  argv.insert(argv.end(), flags_.begin(), flags_.end());
  const double start = Seconds();
  process_ = Must(Subprocess::Start(
      {.argv = argv, .stderr_path = dir_ + "/log", .stdout_path = dir_ + "/log"}));
  while (true) {
    ASSAY_CHECK(process_->running(), "the coordinator ended: see {}/log", dir_);
    std::ifstream file(port_file);
    int port = 0;
    if (file >> port) {
      address_ = fmt::format("127.0.0.1:{}", port);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  // It serves when it answers: a call that reads the database.
  const auto stub = v1::SweepService::NewStub(Connect());
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  v1::ListSweepsRequest request;
  request.set_page_size(1);
  v1::ListSweepsResponse response;
  const grpc::Status status = stub->ListSweeps(&context, request, &response);
  ASSAY_CHECK(status.ok(), "{}", status.error_message());
  return Seconds() - start;
}

void CoordinatorProcess::Stop() { process_->Stop(absl::Seconds(60)); }

void CoordinatorProcess::Kill() {
  process_->Signal(SIGKILL);
  process_->Wait(absl::Seconds(60));
}

std::shared_ptr<grpc::Channel> CoordinatorProcess::Connect() const {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address_, grpc::InsecureChannelCredentials(), arguments);
}

double CoordinatorProcess::CpuSeconds() const {
  std::ifstream file(fmt::format("/proc/{}/stat", process_->pid()));
  std::string line;
  std::getline(file, line);
  std::istringstream fields(line.substr(line.rfind(')') + 2));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;  // state .. cmajflt
  int64_t user = 0;
  int64_t system = 0;
  fields >> user >> system;
  return static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

int64_t CoordinatorProcess::ResidentBytes() const { return StatusField(process_->pid(), "VmRSS"); }
int64_t CoordinatorProcess::PeakBytes() const { return StatusField(process_->pid(), "VmHWM"); }

std::string CoordinatorProcess::Submit(const std::string& spec_yaml) const {
  const auto stub = v1::SweepService::NewStub(Connect());
  grpc::ClientContext context;
  v1::SubmitSweepRequest request;
  request.set_spec_yaml(spec_yaml);
  request.set_spec_name("bench.yaml");
  request.set_request_id(RandomId("bench"));
  v1::SubmitSweepResponse response;
  const grpc::Status status = stub->SubmitSweep(&context, request, &response);
  ASSAY_CHECK(status.ok(), "{}", status.error_message());
  return response.sweep_id();
}

double CoordinatorProcess::TimeCommand(std::vector<std::string> args) const {
  args.insert(args.begin(), ASSAY_BIN_DIR "/assay");
  args.insert(args.end(), {"--coordinator", address_});
  const double start = Seconds();
  const auto command = Must(Subprocess::Start(
      {.argv = std::move(args), .stderr_path = dir_ + "/assay.log", .stdout_path = "/dev/null"}));
  const auto status = command->Wait(absl::Minutes(10));
  ASSAY_CHECK(status.has_value() && *status == 0, "a command failed: see {}/assay.log", dir_);
  return Seconds() - start;
}

}  // namespace assay::bench
