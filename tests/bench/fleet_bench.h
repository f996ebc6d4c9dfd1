// What a fleet asks of a coordinator, measured against a real one over real gRPC on loopback.
// Benchmark and coordinator share the machine: their CPU times are told apart.
#pragma once

#include <string>

namespace assay::bench {

struct SamplesOptions {
  std::string dir;  // on the disk that a coordinator would use
  int num_connections = 64;
  double seconds = 20;
  int text_bytes = 30'000;
};
// Durable samples a second: every connection is a worker that reports batches of 32 as fast as they
// are acknowledged.
void MeasureSamples(const SamplesOptions& options);

struct SyncOptions {
  std::string dir;
  int num_workers = 1000;
  double interval_s = 5;
  double seconds = 60;
  double lease_s = 60;  // each worker reports its lease of 16 units after so long, and gets another
};
// The time from a worker's heartbeat to the coordinator's answer, which comes after a commit.
void MeasureSync(const SyncOptions& options);

struct RestartOptions {
  std::string dir;
  int num_samples = 1'000'000;
  int num_cells = 10'000;  // queued, beside the 50 that hold the samples
};
// Start, memory and reports on a large database, after SIGKILL too. The database stays in `dir` and
// is used again.
void MeasureRestart(const RestartOptions& options);

}  // namespace assay::bench
