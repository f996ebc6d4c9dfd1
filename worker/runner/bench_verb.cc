#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "base/exit_codes.h"
#include "base/status.h"
#include "engine/runtime/benchmark.h"
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

}  // namespace

int Bench(const BenchArguments& arguments, std::ostream& out) {
  engine::BenchmarkOptions options;
  options.model_dir = arguments.model_dir;
  options.random_weights = arguments.random_weights;
  options.devices = arguments.devices;
  if (!arguments.batch_sizes.empty()) options.batch_sizes = arguments.batch_sizes;
  if (!arguments.context_lens.empty()) options.context_lens = arguments.context_lens;
  options.prefill_tokens = arguments.prefill_tokens;
  options.max_steps = arguments.num_steps;
  const absl::Status found = CheckModelFolder(arguments.model_dir, "config.json");
  if (!found.ok()) return FailVerb(found);
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
