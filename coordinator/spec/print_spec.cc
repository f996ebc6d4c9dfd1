// The resolved form: every default filled in, one way to write everything.

#include <array>
#include <string_view>

#include "base/status.h"
#include "coordinator/spec/sweep_spec.h"

namespace assay::coordinator {
namespace {

// Plain words stay plain; everything else is double-quoted, so that no reader takes it for a number
// or a boolean.
bool IsPlainWord(std::string_view text) {
  constexpr std::string_view kFirst = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
  constexpr std::string_view kRest =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789.-/";
  constexpr std::array<std::string_view, 8> kReserved = {"true", "false", "null", "yes",
                                                         "no",   "on",    "off",  "y"};
  if (text.empty() || kFirst.find(text[0]) == std::string_view::npos) return false;
  if (text.find_first_not_of(kRest) != std::string_view::npos) return false;
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  for (const std::string_view reserved : kReserved) {
    if (lower == reserved) return false;
  }
  return lower != "n";
}

std::string Quoted(std::string_view text) {
  if (IsPlainWord(text)) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        quoted += "\\\"";
        break;
      case '\\':
        quoted += "\\\\";
        break;
      case '\n':
        quoted += "\\n";
        break;
      case '\r':
        quoted += "\\r";
        break;
      case '\t':
        quoted += "\\t";
        break;
      default:
        quoted += c;
    }
  }
  return quoted + '"';
}

std::string List(const std::vector<std::string>& names) {
  std::string list = "[";
  for (const std::string& name : names) {
    if (list.size() > 1) list += ", ";
    list += Quoted(name);
  }
  return list + "]";
}

std::string Line(const BenchmarkSpec& benchmark) {
  std::string line = "{name: " + Quoted(benchmark.name);
  if (!benchmark.path.empty()) line += ", path: " + Quoted(benchmark.path);
  line += ", prompt: " + Quoted(benchmark.prompt) + ", grader: " + Quoted(benchmark.grader);
  if (benchmark.limit > 0) line += fmt::format(", limit: {}", benchmark.limit);
  if (benchmark.per_level > 0) line += fmt::format(", per_level: {}", benchmark.per_level);
  if (!benchmark.version.empty()) line += fmt::format(", version: \"{}\"", benchmark.version);
  return line + "}";
}

std::string Line(const MethodEntry& entry) {
  const storage::MethodRecord& method = entry.method;
  std::string line = fmt::format("{{method: {}, bits: {}", method.method, method.bits);
  if (method.method == "rtn") {
    line += fmt::format(", group_size: {}, symmetric: {}, virtual_shards: {}", method.group_size,
                        method.symmetric, method.virtual_shards);
  }
  if (method.method == "kvquant_star") line += fmt::format(", pre_bias: {}", method.pre_bias);
  if (!method.calibration_set.empty()) line += ", calibration: " + Quoted(method.calibration_set);
  if (!entry.models.empty()) line += ", models: " + List(entry.models);
  if (!entry.benchmarks.empty()) line += ", benchmarks: " + List(entry.benchmarks);
  return line + "}";
}

std::string Line(const Exclusion& exclusion) {
  std::string line;
  const auto add = [&](std::string_view key, const std::string& value) {
    if (!value.empty())
      line += fmt::format("{}{}: {}", line.empty() ? "" : ", ", key, Quoted(value));
  };
  add("model", exclusion.model);
  add("method", exclusion.method);
  add("bits", exclusion.bits);
  add("benchmark", exclusion.benchmark);
  return "{" + line + "}";
}

void PrintBenchmarks(const std::vector<BenchmarkSpec>& benchmarks, std::string_view indent,
                     std::string* yaml) {
  if (benchmarks.empty()) return;
  *yaml += fmt::format("{}benchmarks:\n", indent);
  for (const BenchmarkSpec& benchmark : benchmarks) {
    *yaml += fmt::format("{}  - {}\n", indent, Line(benchmark));
  }
}

void PrintSampling(const SweepSpec& spec, std::string* yaml) {
  const storage::SamplingRecord& sampling = spec.sampling;
  *yaml += fmt::format(
      "sampling:\n"
      "  temperature: {}\n"
      "  top_p: {}\n"
      "  top_k: {}\n"
      "  max_tokens: {}\n"
      "  max_model_len: {}\n"
      "  seed: {}\n",
      sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_tokens,
      sampling.max_model_len, sampling.seed);
  if (sampling.budget_forcing_json.empty()) return;
  const BudgetForcingSpec& budget = spec.budget_forcing;
  *yaml += fmt::format(
      "  budget_forcing:\n"
      "    max_thinking_tokens: {}\n"
      "    num_extensions: {}\n"
      "    extension_text: {}\n"
      "    end_of_thinking: {}\n"
      "    forced_stop_text: {}\n",
      budget.max_thinking_tokens, budget.num_extensions, Quoted(budget.extension_text),
      Quoted(budget.end_of_thinking), Quoted(budget.forced_stop_text));
}

}  // namespace

std::string PrintSweepSpec(const SweepSpec& spec) {
  std::string yaml = fmt::format("name: {}\n", Quoted(spec.name));
  if (!spec.owner.empty()) yaml += fmt::format("owner: {}\n", Quoted(spec.owner));
  yaml += fmt::format("priority: {}\nbaseline: {}\ndevice: {}\n", spec.priority, spec.baseline,
                      spec.device == Device::kCuda ? "cuda" : "cpu");

  yaml += "models:\n";
  for (const ModelSpec& model : spec.models) {
    yaml += fmt::format("  - name: {}\n", Quoted(model.name));
    if (!model.path.empty()) yaml += fmt::format("    path: {}\n", Quoted(model.path));
    yaml += fmt::format("    tensor_parallel_size: {}\n", model.tensor_parallel_size);
    PrintBenchmarks(model.benchmarks, "    ", &yaml);
  }
  if (!spec.methods.empty()) yaml += "methods:\n";
  for (const MethodEntry& entry : spec.methods) yaml += "  - " + Line(entry) + "\n";
  PrintBenchmarks(spec.benchmarks, "", &yaml);

  yaml += fmt::format("repeats:\n  default: {}\n", spec.default_repeats);
  for (const auto& [benchmark, count] : spec.repeats) {
    yaml += fmt::format("  {}: {}\n", Quoted(benchmark), count);
  }
  PrintSampling(spec, &yaml);
  yaml += "stop: {rule: fixed}\n";
  if (!spec.exclude.empty()) yaml += "exclude:\n";
  for (const Exclusion& exclusion : spec.exclude) yaml += "  - " + Line(exclusion) + "\n";
  return yaml;
}

}  // namespace assay::coordinator
