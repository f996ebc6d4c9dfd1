#include "coordinator/spec/spec_sections.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "base/names.h"
#include "coordinator/spec/benchmark_registry.h"

namespace assay::coordinator {
namespace {

constexpr size_t kMaxNameBytes = 200;
constexpr size_t kMaxPathBytes = 4000;
constexpr int64_t kMaxItems = 1'000'000;
constexpr int64_t kMaxTokens = 1'000'000;
// The study's limit on new tokens.
constexpr int64_t kDefaultMaxTokens = 32768;

bool IsGoodName(std::string_view name, size_t max_bytes) {
  if (name.empty() || name.size() > max_bytes) return false;
  if (name.front() == ' ' || name.back() == ' ') return false;
  return name.find_first_of("\n\r\t") == std::string_view::npos;
}

const std::vector<std::string>& RegistryNames() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> names;
    for (const BenchmarkDefinition& definition : BenchmarkDefinitions()) {
      names.push_back(definition.name);
    }
    return names;
  }();
  return kNames;
}

// Fills in what the registry knows and checks what is left.
void FillBenchmark(BenchmarkSpec* benchmark, SpecErrors* errors) {
  if (benchmark->name.empty()) return;
  if (IsLaterBenchmark(benchmark->name)) {
    errors->Add(benchmark->where, "benchmark {} is not in this version; it has {}",
                CanonicalBenchmarkName(benchmark->name), fmt::join(RegistryNames(), ", "));
    return;
  }
  benchmark->name = CanonicalBenchmarkName(benchmark->name);
  const BenchmarkDefinition* definition = FindBenchmarkDefinition(benchmark->name);
  if (definition == nullptr && benchmark->path.empty()) {
    errors->Add(benchmark->where,
                "unknown benchmark '{}'{}; there are {}; one of your own needs a path",
                benchmark->name, DidYouMean(benchmark->name, RegistryNames()),
                fmt::join(RegistryNames(), ", "));
    return;
  }
  if (benchmark->prompt.empty()) {
    benchmark->prompt = definition != nullptr ? definition->prompt : MathPrompt();
  }
  if (benchmark->prompt.find("{question}") == std::string::npos) {
    errors->Add(benchmark->where, "prompt of benchmark '{}' has no {{question}} in it",
                benchmark->name);
  }
  if (benchmark->grader.empty()) {
    benchmark->grader = definition != nullptr ? definition->grader : KnownGraders().front();
  }
  const std::vector<std::string>& graders = KnownGraders();
  if (std::find(graders.begin(), graders.end(), benchmark->grader) == graders.end()) {
    errors->Add(benchmark->where, "unknown grader '{}'{}; there are {}",
                benchmark->grader.substr(0, 80), DidYouMean(benchmark->grader, graders),
                fmt::join(graders, ", "));
  }
}

void CheckVersion(MappingReader* reader, const std::string& version, SpecErrors* errors) {
  if (version.empty()) return;
  const bool is_hash = version.size() >= 8 && version.size() <= 64 &&
                       version.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (is_hash) return;
  errors->Add(reader->Find("version")->where,
              "version '{}' of benchmark: write the first 8 to 64 hexadecimal digits of its "
              "version hash",
              version.substr(0, 80));
}

BenchmarkSpec ReadBenchmark(const YamlNode& node, SpecErrors* errors) {
  BenchmarkSpec benchmark;
  benchmark.where = node.where;
  if (node.kind == YamlNode::Kind::kScalar) {
    benchmark.name = ReadName(&node, "name of benchmark", errors);
  } else {
    MappingReader reader(node, "benchmark", errors);
    benchmark.name = ReadName(reader.Require("name"), "name of benchmark", errors);
    benchmark.path = ReadPath(&reader, "benchmark", errors);
    benchmark.prompt = reader.String("prompt");
    benchmark.grader = reader.String("grader");
    benchmark.limit = static_cast<int32_t>(reader.Integer("limit", 0, 1, kMaxItems));
    benchmark.per_level = static_cast<int32_t>(reader.Integer("per_level", 0, 1, kMaxItems));
    benchmark.version = reader.String("version");
    CheckVersion(&reader, benchmark.version, errors);
    reader.RefuseUnknownKeys();
  }
  FillBenchmark(&benchmark, errors);
  return benchmark;
}

void ReadBudgetForcing(const YamlNode* node, SweepSpec* spec, SpecErrors* errors) {
  if (node == nullptr) return;
  MappingReader reader(*node, "budget_forcing", errors);
  BudgetForcingSpec& budget = spec->budget_forcing;
  budget.max_thinking_tokens = reader.Integer("max_thinking_tokens", 0, 0, kMaxTokens);
  budget.num_extensions = static_cast<int32_t>(reader.Integer("num_extensions", 0, 0, 64));
  // s1's word (arXiv 2501.19393), and the mark of the study's models.
  budget.extension_text = reader.String("extension_text", "Wait");
  budget.end_of_thinking = reader.String("end_of_thinking", "</think>");
  budget.forced_stop_text = reader.String("forced_stop_text", "\n</think>\n\n");
  reader.RefuseUnknownKeys();
  if (budget.max_thinking_tokens == 0 && budget.num_extensions == 0) {
    errors->Add(node->where,
                "budget_forcing does nothing: give max_thinking_tokens or num_extensions");
  }
  if (budget.end_of_thinking.empty()) {
    errors->Add(node->where, "end_of_thinking of budget_forcing is empty");
  }
  spec->sampling.budget_forcing_json = BudgetForcingJson(budget);
}

}  // namespace

bool HasParentStep(std::string_view path) {
  return path == ".." || path.starts_with("../") || path.ends_with("/..") ||
         path.find("/../") != std::string_view::npos;
}

std::string ReadName(const YamlNode* node, std::string_view what, SpecErrors* errors) {
  if (node == nullptr) return "";
  std::optional<std::string> name = ReadString(*node, what, errors);
  if (!name) return "";
  if (IsGoodName(*name, kMaxNameBytes)) return *std::move(name);
  errors->Add(node->where, "{} must be one line of 1 to {} bytes", what, kMaxNameBytes);
  return "";
}

std::string ReadPath(MappingReader* reader, std::string_view what, SpecErrors* errors) {
  std::string path = reader->String("path");
  if (path.empty() || (IsGoodName(path, kMaxPathBytes) && !HasParentStep(path))) return path;
  errors->Add(reader->Find("path")->where, "path of {} must be one line without '..'", what);
  return "";
}

std::vector<BenchmarkSpec> ReadBenchmarks(MappingReader* reader, SpecErrors* errors) {
  std::vector<BenchmarkSpec> benchmarks;
  for (const YamlNode* node : reader->List("benchmarks", kMaxBenchmarks)) {
    BenchmarkSpec benchmark = ReadBenchmark(*node, errors);
    const auto same =
        std::find_if(benchmarks.begin(), benchmarks.end(),
                     [&](const BenchmarkSpec& other) { return other.name == benchmark.name; });
    if (same == benchmarks.end()) {
      benchmarks.push_back(std::move(benchmark));
    } else if (!benchmark.name.empty()) {
      errors->Add(benchmark.where, "benchmark '{}' stands at line {} already", benchmark.name,
                  same->where.line);
    }
  }
  return benchmarks;
}

void ReadSampling(const YamlNode* node, SweepSpec* spec, SpecErrors* errors) {
  storage::SamplingRecord& sampling = spec->sampling;
  sampling.max_tokens = kDefaultMaxTokens;
  if (node == nullptr) return;
  MappingReader reader(*node, "sampling", errors);
  sampling.temperature = reader.Number("temperature", sampling.temperature, 0, 10);
  sampling.top_p = reader.Number("top_p", sampling.top_p, 0, 1);
  if (sampling.top_p == 0) {
    errors->Add(reader.Find("top_p")->where, "top_p of sampling 0: must be above 0; 1 is off");
  }
  sampling.top_k = static_cast<int32_t>(reader.Integer("top_k", 0, 0, 1 << 24));
  sampling.max_tokens = reader.Integer("max_tokens", kDefaultMaxTokens, 1, kMaxTokens);
  sampling.max_model_len = reader.Integer("max_model_len", 0, 0, 2 * kMaxTokens);
  sampling.seed = reader.Integer("seed", sampling.seed, 0, INT64_MAX);
  ReadBudgetForcing(reader.Find("budget_forcing"), spec, errors);
  reader.RefuseUnknownKeys();
}

void CheckStop(const YamlNode* node, SpecErrors* errors) {
  if (node == nullptr) return;
  MappingReader reader(*node, "stop", errors);
  const YamlNode* rule = reader.Require("rule");
  const YamlNode* most = reader.Find("max_repeats");
  reader.RefuseUnknownKeys();
  if (rule == nullptr) return;
  const std::optional<std::string> name = ReadString(*rule, "rule of stop", errors);
  if (!name) return;
  if (*name == "decided") {
    errors->Add(rule->where,
                "stop rule decided is not in this version; write 'rule: fixed' and say how many "
                "repeats");
  } else if (*name != "fixed") {
    errors->Add(rule->where, "unknown stop rule '{}'; there is fixed", name->substr(0, 80));
  } else if (most != nullptr) {
    errors->Add(most->where, "max_repeats of stop goes with 'rule: decided'; take it out");
  }
}

}  // namespace assay::coordinator
