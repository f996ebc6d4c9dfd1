// A real coordinator under a benchmark: this build's assay-coordinator on a port of the kernel's
// choice, with what it costs read from /proc.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/subprocess.h"

namespace assay::bench {

class CoordinatorProcess {
 public:
  // Data in `dir`/data; models and benchmarks are the examples'. Starts and waits until it serves.
  explicit CoordinatorProcess(std::string dir, std::vector<std::string> flags = {});

  // Stops it with SIGTERM or SIGKILL and waits for its end.
  void Stop();
  void Kill();
  // Starts it again; returns the seconds from the start of the process to the first health check
  // that it answers with SERVING.
  double Start();

  std::string address() const { return address_; }
  // A connection of its own, not shared with other channels of this process.
  std::shared_ptr<grpc::Channel> Connect() const;

  double CpuSeconds() const;      // user and system time so far
  int64_t ResidentBytes() const;  // VmRSS
  int64_t PeakBytes() const;      // VmHWM

  // Submits a sweep and returns its id.
  std::string Submit(const std::string& spec_yaml) const;
  // `assay ARGS...` against it, output thrown away; the seconds it took.
  double TimeCommand(std::vector<std::string> args) const;

 private:
  const std::string dir_;
  const std::vector<std::string> flags_;
  std::string address_;
  std::unique_ptr<Subprocess> process_;
};

}  // namespace assay::bench
