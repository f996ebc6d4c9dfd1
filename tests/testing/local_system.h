// A whole Assay system of real processes on loopback, for integration tests: a coordinator on a
// port of the kernel's choice, workers, and the command line.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/subprocess.h"

namespace assay::testing {

// What a command printed and how it ended.
struct CommandResult {
  int exit_code = -1;
  std::string out;
  std::string err;
};

// Runs a program of this build to its end. `input` goes to its standard input.
CommandResult RunProgram(const std::vector<std::string>& argv, const std::string& input = "",
                         const std::vector<std::string>& environment = {});

// Polls until `condition` holds; false after `timeout`, or ten of it under a sanitizer.
bool WaitUntil(const std::function<bool()>& condition, absl::Duration timeout);

// Everything lives under one folder: the database, artifacts, spools, logs.
class LocalSystem {
 public:
  struct Options {
    std::string directory;                 // must exist
    std::vector<std::string> model_roots;  // default: the examples
    std::vector<std::string> benchmark_roots;
    std::vector<std::string> calibration_roots;
    std::vector<std::string> coordinator_flags;
    std::vector<std::string> worker_flags;
  };
  explicit LocalSystem(Options options);
  ~LocalSystem();

  // Starts the coordinator, or starts it again on the same data, and waits until it serves. The
  // port stays the same over restarts.
  absl::Status StartCoordinator();
  absl::Status StartWorker(const std::string& worker_id, int num_slots);

  // SIGKILL and reap.
  void KillCoordinator();
  void KillWorker(const std::string& worker_id);
  // SIGKILLs one runner that is a child of this worker; false when it has none.
  bool KillARunner(const std::string& worker_id);

  // SIGTERM, and waits for a clean end. Returns the wait status, or -1 when it had to be killed.
  int StopWorker(const std::string& worker_id, absl::Duration timeout);
  int StopCoordinator(absl::Duration timeout);

  Subprocess* coordinator() { return coordinator_.get(); }

  // `assay ARGS...` against this coordinator.
  CommandResult Assay(std::vector<std::string> args, const std::string& input = "") const;

  // Writes `spec_yaml` beside the data and submits it; the sweep's id.
  absl::StatusOr<std::string> Submit(const std::string& spec_yaml);

  // Samples stored so far, read from the database file.
  int64_t NumSamples() const;

  // One line per stored sample in a fixed order: cell, item, repeat, seed, verdict, tokens and the
  // ids themselves; all that a disturbance must not change.
  std::vector<std::string> SampleFingerprints() const;

  bool SweepSettled(const std::string& sweep_id) const;

  std::string database() const { return options_.directory + "/data/assay.db"; }
  std::string address() const;
  // The last lines of every log, for failure messages.
  std::string Logs() const;

 private:
  struct Worker {
    std::string id;
    int num_slots = 1;
    std::unique_ptr<Subprocess> process;
  };
  Worker* Find(const std::string& worker_id);

  Options options_;
  int port_ = 0;
  std::unique_ptr<Subprocess> coordinator_;
  std::vector<Worker> workers_;
};

}  // namespace assay::testing
