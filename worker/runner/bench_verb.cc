#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/exit_codes.h"
#include "base/status.h"
#include "engine/runtime/benchmark.h"
#include "engine/runtime/engine.h"
#include "engine/runtime/makespan.h"
#include "worker/runner/verb_errors.h"
#include "worker/runner/verbs.h"

namespace assay::worker {
namespace {

using nlohmann::json;

double IdleShare(const engine::BenchmarkRow& row) {
  return row.step_us > 0 ? 1 - row.device_us / row.step_us : 0;
}

json ToJson(const engine::BenchmarkReport& report, const std::string& model_dir) {
  json rows = json::array();
  for (const engine::BenchmarkRow& row : report.rows) {
    rows.push_back({{"what", row.what},
                    {"batch_size", row.batch_size},
                    {"context_len", row.context_len},
                    {"step_us", row.step_us},
                    {"device_us", row.device_us},
                    {"idle_share", IdleShare(row)},
                    {"tokens_per_s", row.tokens_per_s},
                    {"bytes", row.bytes},
                    {"copy_share", row.copy_share},
                    {"tflops", row.tflops}});
  }
  return {{"model", model_dir},
          {"device", report.device},
          {"copy_bytes_per_s", report.copy_bytes_per_s},
          {"rows", rows}};
}

void PrintTable(const engine::BenchmarkReport& report, std::ostream& out) {
  out << fmt::format("{}; copies {:.2f} TB/s\n", report.device, report.copy_bytes_per_s / 1e12);
  out << fmt::format("{:9} {:>5} {:>7} {:>10} {:>6} {:>10} {:>8} {:>8} {:>8}\n", "what", "batch",
                     "context", "step us", "idle", "tokens/s", "GB", "of copy", "TFLOP/s");
  for (const engine::BenchmarkRow& row : report.rows) {
    out << fmt::format("{:9} {:5} {:7} {:10.1f} {:5.1f}% {:10.0f} {:8.2f} {:8.2f} {:8.0f}\n",
                       row.what, row.batch_size, row.context_len, row.step_us, 100 * IdleShare(row),
                       row.tokens_per_s, row.bytes / 1e9, row.copy_share, row.tflops);
  }
}

double Share(double part, double whole) { return whole > 0 ? part / whole : 0; }

void PrintMakespan(const engine::Makespan& job, double copy_bytes_per_s, std::ostream& out) {
  const double gb_per_s = Share(job.bytes, job.wall_s) / 1e9;
  out << fmt::format("{} requests, {} prompt and {} answer tokens in {} steps: {:.2f} s\n",
                     job.num_requests, job.prompt_tokens, job.output_tokens, job.num_steps(),
                     job.wall_s);
  out << fmt::format("{:.0f} tokens/s; {:.0f} GB read, {:.0f} GB/s, {:.2f} of copy\n",
                     Share(static_cast<double>(job.output_tokens), job.wall_s), job.bytes / 1e9,
                     gb_per_s, gb_per_s * 1e9 / copy_bytes_per_s);
  out << fmt::format(
      "idle {:.1f}%; expected {:.2f} s: {:.2f} of it reached; bound {:.2f} s: {:.2f}\n",
      100 * (1 - Share(job.device_s, job.wall_s)), job.predicted_s(),
      Share(job.predicted_s(), job.wall_s), job.bound_s, Share(job.bound_s, job.wall_s));
  const std::pair<const char*, const engine::StepTimes*> kinds[] = {
      {"answers alone", &job.decode_steps}, {"prompts too", &job.prompt_steps}};
  for (const auto& [name, steps] : kinds) {
    const double count = static_cast<double>(steps->count);
    out << fmt::format("{} steps of {}: {:.2f} ms each, expected {:.2f}\n", steps->count, name,
                       1e3 * Share(steps->device_s, count), 1e3 * Share(steps->predicted_s, count));
  }
  out << fmt::format("{} preemptions, {} of them to host memory\n", job.num_preemptions,
                     job.num_swaps);
}

json ToJson(const engine::StepTimes& steps) {
  return {{"count", steps.count}, {"device_s", steps.device_s}, {"predicted_s", steps.predicted_s}};
}

json ToJson(const engine::Makespan& job, const BenchArguments& arguments, double copy_bytes_per_s) {
  return {{"model", arguments.model_dir},
          {"lengths", arguments.lengths_file},
          {"lanes", arguments.num_lanes},
          {"copy_bytes_per_s", copy_bytes_per_s},
          {"num_requests", job.num_requests},
          {"prompt_tokens", job.prompt_tokens},
          {"output_tokens", job.output_tokens},
          {"num_steps", job.num_steps()},
          {"decode_steps", ToJson(job.decode_steps)},
          {"prompt_steps", ToJson(job.prompt_steps)},
          {"wall_s", job.wall_s},
          {"device_s", job.device_s},
          {"idle_share", 1 - Share(job.device_s, job.wall_s)},
          {"tokens_per_s", Share(static_cast<double>(job.output_tokens), job.wall_s)},
          {"bytes", job.bytes},
          {"copy_share", Share(job.bytes / copy_bytes_per_s, job.wall_s)},
          {"cache_bytes", job.cache_bytes},
          {"bound_s", job.bound_s},
          {"bound_share", Share(job.bound_s, job.wall_s)},
          {"predicted_s", job.predicted_s()},
          {"predicted_share", Share(job.predicted_s(), job.wall_s)},
          {"num_preemptions", job.num_preemptions},
          {"num_swaps", job.num_swaps}};
}

int64_t Bytes(double gib) { return static_cast<int64_t>(gib * (int64_t{1} << 30)); }

absl::Status BenchJob(const BenchArguments& arguments, std::ostream& out) {
  ASSAY_ASSIGN_OR_RETURN(const std::vector<engine::RequestLength> lengths,
                         engine::ReadLengths(arguments.lengths_file));
  ASSAY_ASSIGN_OR_RETURN(const double copy_bytes_per_s,
                         engine::MeasureCopyRate(arguments.devices.front()));
  int64_t longest = 0;
  for (const engine::RequestLength& length : lengths) {
    longest = std::max(longest, length.prompt_tokens + length.output_tokens);
  }
  engine::EngineOptions options;
  options.device = fmt::format("cuda:{}", fmt::join(arguments.devices, ","));
  options.max_num_seqs = arguments.num_lanes;
  options.max_model_len = longest;
  options.kv_cache_bytes = Bytes(arguments.kv_cache_gib);
  if (arguments.swap_gib >= 0) options.swap_bytes = Bytes(arguments.swap_gib);
  options.look_ahead = arguments.look_ahead;
  options.prompt_step_cost = arguments.prompt_step_cost;
  options.random_weights = arguments.random_weights;
  ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<engine::Engine> engine,
                         engine::Engine::Load(arguments.model_dir, options));
  // What the gang's memories give together is what its steps can take.
  const double rate = copy_bytes_per_s * static_cast<double>(arguments.devices.size());
  ASSAY_ASSIGN_OR_RETURN(
      const engine::Makespan job,
      engine::MeasureMakespan(engine.get(), lengths, {.model = {.bytes_per_s = rate}}));
  if (arguments.json) {
    out << ToJson(job, arguments, rate).dump() << "\n";
  } else {
    PrintMakespan(job, rate, out);
  }
  return absl::OkStatus();
}

}  // namespace

int Bench(const BenchArguments& arguments, std::ostream& out) {
  engine::BenchmarkOptions options;
  options.model_dir = arguments.model_dir;
  options.random_weights = arguments.random_weights;
  options.weight_bits = arguments.weight_bits;
  options.devices = arguments.devices;
  if (!arguments.batch_sizes.empty()) options.batch_sizes = arguments.batch_sizes;
  if (!arguments.context_lens.empty()) options.context_lens = arguments.context_lens;
  options.prefill_tokens = arguments.prefill_tokens;
  options.max_steps = arguments.num_steps;
  const absl::Status found = CheckModelFolder(arguments.model_dir, "config.json");
  if (!found.ok()) return FailVerb(found);
  if (!arguments.lengths_file.empty()) {
    const absl::Status status = BenchJob(arguments, out);
    return status.ok() ? kExitOk : FailVerb(status);
  }
  const auto report = engine::RunCudaBenchmark(options);
  if (!report.ok()) return FailVerb(report.status());
  if (arguments.json) {
    out << ToJson(*report, arguments.model_dir).dump() << "\n";
  } else {
    PrintTable(*report, out);
  }
  return kExitOk;
}

}  // namespace assay::worker
