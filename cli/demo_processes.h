// The coordinator and the worker of `assay demo`: separate processes on loopback, with their logs
// in the data folder.
//
// Not thread-safe. The destructor stops what runs. If this program is killed, the kernel kills
// them.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <memory>
#include <string>
#include <vector>

#include "base/subprocess.h"

namespace assay::cli {

class DemoProcesses {
 public:
  struct Options {
    std::string data;      // folder of the database, logs, artifacts
    std::string examples;  // folder with models/, benchmarks/, calibration/
    bool on_gpu = false;   // the first one, instead of num_slots runners on the CPU
    int num_slots = 1;
  };

  // Starts both, and returns when the coordinator serves. NOT_FOUND when a program is not beside
  // this one; CANCELLED after Ctrl-C; otherwise the error of whichever died, with its log on
  // stderr.
  static absl::StatusOr<std::unique_ptr<DemoProcesses>> Start(const Options& options);
  ~DemoProcesses();
  DemoProcesses(const DemoProcesses&) = delete;
  DemoProcesses& operator=(const DemoProcesses&) = delete;

  // HOST:PORT of the coordinator.
  const std::string& address() const { return address_; }

  // OK while both run; else INTERNAL naming the one that ended, how, and its log.
  absl::Status Check();

  // Prints the last lines of the log of whichever has ended to stderr.
  void ShowLastLines();

  // Stops the worker, then the coordinator: SIGTERM, after `grace` SIGKILL. With `hurry` the worker
  // does not finish what it has leased.
  void Stop(absl::Duration grace, bool hurry);

 private:
  struct Process {
    std::string name;
    std::string log;
    std::unique_ptr<Subprocess> process;
  };

  DemoProcesses() = default;
  static absl::StatusOr<Process> Spawn(const std::string& data, const std::string& program,
                                       std::vector<std::string> arguments);
  absl::Status AwaitPort(const std::string& port_file);

  std::vector<Process> processes_;  // the coordinator first
  std::string address_;
};

}  // namespace assay::cli
