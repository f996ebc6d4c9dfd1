// How long a whole job takes: requests of given lengths through the engine, which arrive in leases
// as an agent hands them out, against a model of its steps.
//
// Random weights end no answer sensibly, so lengths come from a file: a request ends when it has
// the length of its line, whatever was drawn. Each line holds a prompt's tokens and an answer's;
// lines that begin with # are comments.
//
// The model of a step, which is bound by the bytes it must read:
//
//   max(weight bytes / (copy rate * w) + cache bytes / (copy rate * c), operations / peak) + fixed
//
// summed over the steps that the engine took: with w = c = 1 a bound, with the shares of the copy
// rate that good products and good attention reach what is to be expected. Prediction over measured
// time is the share reached.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engine/runtime/engine.h"

namespace assay::engine {

struct RequestLength {
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
};

// NOT_FOUND without the file, INVALID_ARGUMENT naming the line that is not two positive numbers.
absl::StatusOr<std::vector<RequestLength>> ReadLengths(const std::string& path);

struct StepModel {
  double bytes_per_s = 0;        // what copies reach
  double linear_share = 0.85;    // of it
  double attention_share = 0.8;  // of it
  double flops_per_s = 800e12;   // of a product in bf16
  double fixed_s = 400e-6;       // a step: launches, attention's start, sampling
};

struct MakespanOptions {
  // Requests handed over at once, whenever fewer are waiting.
  int lease_size = 16;
  StepModel model;
  const Clock* clock = RealClock::Get();
};

// Of the steps of one kind.
struct StepTimes {
  int64_t count = 0;
  double device_s = 0;  // by the device's clock; 0 on a CPU
  double predicted_s = 0;
};

struct Makespan {
  int64_t num_requests = 0;
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  StepTimes decode_steps;  // of answers alone
  StepTimes prompt_steps;  // with tokens of prompts
  double wall_s = 0;
  double device_s = 0;     // of it, by the device's clock; 0 on a CPU
  double bytes = 0;        // weights and cache read
  double cache_bytes = 0;  // of them the cache
  double bound_s = 0;      // the model with shares of 1
  int64_t num_preemptions = 0;
  int64_t num_swaps = 0;

  int64_t num_steps() const { return decode_steps.count + prompt_steps.count; }
  double predicted_s() const { return decode_steps.predicted_s + prompt_steps.predicted_s; }
};

// Runs all requests through an idle engine. INVALID_ARGUMENT for one that it rejects.
absl::StatusOr<Makespan> MeasureMakespan(Engine* engine, std::span<const RequestLength> lengths,
                                         const MakespanOptions& options);

}  // namespace assay::engine
