// What a model's shape reaches on a GPU, against what the device's memory gives in the same run.
//
// No CUDA in this header: a build without the backend answers FAILED_PRECONDITION.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"

namespace assay::engine {

struct BenchmarkOptions {
  std::string model_dir;
  bool random_weights = false;  // model_dir holds config.json (and perhaps assay_quant.json) alone
  int weight_bits = 16;         // of random weights: 16, 8, 4 or 3 (groups of 128)
  std::vector<int> devices = {0};  // several: tensor-parallel
  std::vector<int> batch_sizes = {1, 16, 64, 128, 256};
  std::vector<int64_t> context_lens = {1024, 8192};
  int64_t prefill_tokens = 8192;  // in prompts of 2048; 0: no prefill
  int max_steps = 10;             // timed ones of each decode measurement
  const Clock* clock = RealClock::Get();
};

struct BenchmarkRow {
  std::string
      what;  // "decode", "attention" and "linears" (of one layer), "prefill", "sampling", "copy"
  int batch_size = 0;
  int64_t context_len = 0;
  double step_us = 0;    // by the host's clock
  double device_us = 0;  // of it by the device's
  double tokens_per_s = 0;
  double bytes = 0;       // that each GPU must read or write at least, a step
  double copy_share = 0;  // bytes / step_us over the copy bandwidth; 0 where it does not matter
  double tflops = 0;      // of the linears and of attention; 0 where it does not matter
};

struct BenchmarkReport {
  std::string device;
  double copy_bytes_per_s = 0;  // device to device, read and written bytes
  std::vector<BenchmarkRow> rows;
};

// Bytes per second of a large copy on the device, read and written.
absl::StatusOr<double> MeasureCopyRate(int device);

// For a gang also the rows of MeasureAllReduce (cuda_gang_benchmark.h). Combinations that do not
// fit the memory are left out.
absl::StatusOr<BenchmarkReport> RunCudaBenchmark(const BenchmarkOptions& options);

}  // namespace assay::engine
