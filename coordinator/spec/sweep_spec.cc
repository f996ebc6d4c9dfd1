#include "coordinator/spec/sweep_spec.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "base/names.h"
#include "coordinator/spec/benchmark_registry.h"
#include "coordinator/spec/method_rules.h"
#include "coordinator/spec/spec_reader.h"
#include "coordinator/spec/spec_sections.h"
#include "coordinator/spec/yaml_tree.h"

namespace assay::coordinator {
namespace {

constexpr size_t kMaxModels = 1000;
constexpr size_t kMaxMethods = 1000;
constexpr size_t kMaxExclusions = 100;
constexpr int64_t kMaxRepeats = 1024;

// Reads one file into a spec. Each Read... takes what it understands and reports the rest.
class SpecParser {
 public:
  explicit SpecParser(const std::string& file_name) : errors_(file_name) {
    spec_.file_name = file_name;
  }

  absl::StatusOr<SweepSpec> Parse(const YamlNode& root) {
    MappingReader sweep(root, "sweep", &errors_);
    if (sweep.is_mapping()) ReadSweep(&sweep, root);
    ASSAY_RETURN_IF_ERROR(errors_.status());
    return std::move(spec_);
  }

 private:
  void ReadSweep(MappingReader* sweep, const YamlNode& root) {
    spec_.name = ReadName(sweep->Require("name"), "name of sweep", &errors_);
    spec_.owner = sweep->String("owner");
    spec_.priority = static_cast<int32_t>(sweep->Integer("priority", spec_.priority, 0, 100));
    spec_.baseline = sweep->Bool("baseline", spec_.baseline);
    spec_.device = ReadDevice(sweep);

    spec_.benchmarks = ReadBenchmarks(sweep, &errors_);
    sweep->Require("models");
    for (const YamlNode* node : sweep->List("models", kMaxModels)) ReadModel(*node);
    CheckBenchmarksExist(root);
    CollectDeclaredNames();

    for (const YamlNode* node : sweep->List("methods", kMaxMethods)) ReadMethod(*node);
    if (spec_.methods.empty() && !spec_.baseline && errors_.empty()) {
      errors_.Add(root.where, "neither methods nor a baseline: nothing to run");
    }
    ReadRepeats(sweep->Find("repeats"));
    ReadSampling(sweep->Find("sampling"), &spec_, &errors_);
    CheckStop(sweep->Find("stop"), &errors_);
    for (const YamlNode* node : sweep->List("exclude", kMaxExclusions)) ReadExclusion(*node);
    sweep->RefuseUnknownKeys();
  }

  Device ReadDevice(MappingReader* sweep) {
    const std::string device = sweep->String("device", "cpu");
    if (device == "cpu") return Device::kCpu;
    if (device != "cuda") {
      errors_.Add(sweep->Find("device")->where, "device of sweep '{}': must be cpu or cuda",
                  device.substr(0, 80));
    }
    return Device::kCuda;  // what nothing else in the spec contradicts
  }

  void ReadModel(const YamlNode& node) {
    ModelSpec model;
    model.where = node.where;
    if (node.kind == YamlNode::Kind::kScalar) {
      model.name = ReadName(&node, "name of model", &errors_);
    } else {
      MappingReader reader(node, "model", &errors_);
      model.name = ReadName(reader.Require("name"), "name of model", &errors_);
      model.path = ReadPath(&reader, "model", &errors_);
      model.tensor_parallel_size =
          static_cast<int32_t>(reader.Integer("tensor_parallel_size", 1, 1, 64));
      if (model.tensor_parallel_size != 1 && spec_.device == Device::kCpu) {
        errors_.Add(reader.Find("tensor_parallel_size")->where,
                    "tensor_parallel_size {} needs GPUs: add 'device: cuda' to the sweep, or use 1",
                    model.tensor_parallel_size);
      }
      model.benchmarks = ReadBenchmarks(&reader, &errors_);
      reader.RefuseUnknownKeys();
    }
    if (HasParentStep(model.name)) {
      errors_.Add(model.where, "model name '{}' must stay inside the model roots", model.name);
    }
    for (const ModelSpec& other : spec_.models) {
      if (other.name != model.name) continue;
      errors_.Add(model.where, "model '{}' stands at line {} already", model.name,
                  other.where.line);
      return;
    }
    spec_.models.push_back(std::move(model));
  }

  void CheckBenchmarksExist(const YamlNode& root) {
    if (!spec_.benchmarks.empty()) return;
    const bool all_have_their_own =
        !spec_.models.empty() &&
        std::all_of(spec_.models.begin(), spec_.models.end(),
                    [](const ModelSpec& model) { return !model.benchmarks.empty(); });
    if (!all_have_their_own && errors_.empty()) {
      errors_.Add(root.where,
                  "missing key 'benchmarks' in sweep: give the sweep or each of its models some");
    }
  }

  void ReadMethod(const YamlNode& node) {
    MappingReader reader(node, "method", &errors_);
    if (const YamlNode* checkpoint = reader.Find("checkpoint")) {
      errors_.Add(checkpoint->where,
                  "checkpoint entries (somebody else's quantized model) are not supported yet");
      return;
    }
    MethodRequest request;
    const YamlNode* name = reader.Require("method");
    request.method = ReadName(name, "method", &errors_);
    std::vector<std::pair<std::string, SpecPosition>> bits = reader.Strings("bits");
    request.group_size = Narrow(reader.OptionalInteger("group_size", -1, 1 << 20));
    request.symmetric = reader.OptionalBool("symmetric");
    request.pre_bias = reader.OptionalBool("pre_bias");
    request.virtual_shards = Narrow(reader.OptionalInteger("virtual_shards", 1, 64));
    request.calibration_set = ReadCalibration(reader.Find("calibration"));

    MethodEntry entry;
    entry.where = node.where;
    entry.models = ReadModelNames(&reader);
    entry.benchmarks = ReadBenchmarkNames(&reader);
    reader.RefuseUnknownKeys();
    if (request.method.empty()) return;

    if (bits.empty()) bits.emplace_back("", node.where);
    for (const auto& [width, where] : bits) {
      request.bits = width;
      absl::StatusOr<storage::MethodRecord> method = ResolveMethod(request);
      if (!method.ok()) {
        const std::vector<std::string>& known = KnownMethods();
        const bool is_known = std::find(known.begin(), known.end(), request.method) != known.end();
        errors_.AddMessage(is_known ? where : name->where, Message(method.status()));
        return;  // the other widths would mostly say the same
      }
      entry.method = *std::move(method);
      AddMethod(entry);
    }
  }

  // One entry more, unless it would make a cell that an earlier entry makes.
  void AddMethod(const MethodEntry& entry) {
    // Lists are sorted; an empty one stands for everything.
    const auto overlap = [](const std::vector<std::string>& a, const std::vector<std::string>& b) {
      std::vector<std::string> both;
      std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
      return a.empty() || b.empty() || !both.empty();
    };
    for (const MethodEntry& other : spec_.methods) {
      // The label names every parameter that differs from its default.
      const bool same = other.method.label == entry.method.label &&
                        other.method.bits == entry.method.bits &&
                        other.method.calibration_set == entry.method.calibration_set;
      if (!same || !overlap(other.models, entry.models) ||
          !overlap(other.benchmarks, entry.benchmarks)) {
        continue;
      }
      errors_.Add(entry.where, "{} {} stands at line {} already, with the same parameters",
                  entry.method.label, entry.method.bits, other.where.line);
      return;
    }
    spec_.methods.push_back(entry);
    if (spec_.methods.size() == kMaxMethods + 1) {
      errors_.Add(entry.where, "more than {} methods", kMaxMethods);
    }
  }

  static std::optional<int32_t> Narrow(std::optional<int64_t> value) {
    if (!value) return std::nullopt;
    return static_cast<int32_t>(*value);
  }

  std::optional<std::string> ReadCalibration(const YamlNode* node) {
    if (node == nullptr) return std::nullopt;
    std::string name;
    if (node->kind == YamlNode::Kind::kScalar) {
      name = ReadName(node, "calibration", &errors_);
    } else {
      MappingReader reader(*node, "calibration", &errors_);
      name = ReadName(reader.Require("set"), "set of calibration", &errors_);
      if (reader.Bool("self_generated", false)) {
        errors_.Add(reader.Find("self_generated")->where,
                    "self-generated calibration is not in this version; take self_generated out "
                    "and give a set of texts");
      }
      reader.RefuseUnknownKeys();
    }
    if (name.find('/') != std::string::npos || name.starts_with('.')) {
      errors_.Add(node->where,
                  "calibration '{}' must be the name of a set, the file NAME.jsonl under a "
                  "calibration root",
                  name);
    }
    return name;
  }

  std::vector<std::string> ReadModelNames(MappingReader* reader) {
    std::vector<std::string> names;
    for (auto& [name, where] : reader->Strings("models")) {
      CheckDeclared(name, declared_models_, "model", where);
      names.push_back(std::move(name));
    }
    return SortedUnique(std::move(names));
  }

  std::vector<std::string> ReadBenchmarkNames(MappingReader* reader) {
    std::vector<std::string> names;
    for (auto& [name, where] : reader->Strings("benchmarks")) {
      name = CanonicalBenchmarkName(name);
      CheckDeclared(name, declared_benchmarks_, "benchmark", where);
      names.push_back(std::move(name));
    }
    return SortedUnique(std::move(names));
  }

  static std::vector<std::string> SortedUnique(std::vector<std::string> names) {
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    return names;
  }

  // Names that restrictions, repeats and exclusions may use.
  void CollectDeclaredNames() {
    for (const ModelSpec& model : spec_.models) declared_models_.push_back(model.name);
    std::set<std::string> names;
    for (const BenchmarkSpec& benchmark : spec_.benchmarks) names.insert(benchmark.name);
    for (const ModelSpec& model : spec_.models) {
      for (const BenchmarkSpec& benchmark : model.benchmarks) names.insert(benchmark.name);
    }
    declared_benchmarks_ = {names.begin(), names.end()};
  }

  void CheckDeclared(const std::string& name, const std::vector<std::string>& known,
                     std::string_view what, SpecPosition where) {
    if (std::find(known.begin(), known.end(), name) != known.end()) return;
    errors_.Add(where, "{} '{}' is not one of the sweep's {}s{}", what, name.substr(0, 80), what,
                DidYouMean(name, known));
  }

  void ReadRepeats(const YamlNode* node) {
    if (node == nullptr) return;
    if (node->kind != YamlNode::Kind::kMapping) {
      spec_.default_repeats = static_cast<int32_t>(
          ReadInteger(*node, "repeats of sweep", 1, kMaxRepeats, &errors_).value_or(1));
      return;
    }
    for (size_t i = 0; i < node->keys.size(); ++i) {
      const YamlNode::Key& key = node->keys[i];
      const std::optional<int64_t> count = ReadInteger(
          node->values[i], "repeats of " + key.name.substr(0, 80), 1, kMaxRepeats, &errors_);
      if (!count) continue;
      if (key.name == "default") {
        spec_.default_repeats = static_cast<int32_t>(*count);
        continue;
      }
      const std::string name = CanonicalBenchmarkName(key.name);
      CheckDeclared(name, declared_benchmarks_, "benchmark", key.where);
      if (!spec_.repeats.emplace(name, static_cast<int32_t>(*count)).second) {
        errors_.Add(key.where, "repeats of {} are given twice", name);
      }
    }
    std::erase_if(spec_.repeats,
                  [&](const auto& entry) { return entry.second == spec_.default_repeats; });
  }

  void ReadExclusion(const YamlNode& node) {
    MappingReader reader(node, "exclude", &errors_);
    Exclusion exclusion;
    exclusion.where = node.where;
    exclusion.model = reader.String("model");
    exclusion.method = reader.String("method");
    exclusion.bits = reader.String("bits");
    exclusion.benchmark = CanonicalBenchmarkName(reader.String("benchmark"));
    reader.RefuseUnknownKeys();
    if (!reader.is_mapping()) return;
    if (node.keys.empty()) errors_.Add(node.where, "exclude entry {{}} would leave out everything");

    std::set<std::string> methods = {"bf16"};
    std::set<std::string> bits = {"16-16-16"};
    for (const MethodEntry& entry : spec_.methods) {
      methods.insert(entry.method.method);
      bits.insert(entry.method.bits);
    }
    const auto check = [&](const std::string& name, const std::vector<std::string>& known,
                           std::string_view what, std::string_view key) {
      if (!name.empty() && errors_.empty())
        CheckDeclared(name, known, what, reader.Find(key)->where);
    };
    check(exclusion.model, declared_models_, "model", "model");
    check(exclusion.method, {methods.begin(), methods.end()}, "method", "method");
    check(exclusion.bits, {bits.begin(), bits.end()}, "bit width", "bits");
    check(exclusion.benchmark, declared_benchmarks_, "benchmark", "benchmark");
    spec_.exclude.push_back(std::move(exclusion));
  }

  SpecErrors errors_;
  SweepSpec spec_;
  std::vector<std::string> declared_models_;
  std::vector<std::string> declared_benchmarks_;
};

}  // namespace

int32_t SweepSpec::num_repeats(const std::string& benchmark) const {
  const auto found = repeats.find(benchmark);
  return found == repeats.end() ? default_repeats : found->second;
}

std::string SweepSpec::At(const SpecPosition& where) const {
  return where.line == 0 ? fmt::format("{}: ", file_name)
                         : fmt::format("{}:{}:{}: ", file_name, where.line, where.column);
}

absl::StatusOr<SweepSpec> ParseSweepSpec(const std::string& yaml, const std::string& file_name) {
  ASSAY_ASSIGN_OR_RETURN(const YamlNode root, ParseYaml(yaml, file_name));
  return SpecParser(file_name).Parse(root);
}

std::string BudgetForcingJson(const BudgetForcingSpec& budget) {
  if (budget.max_thinking_tokens == 0 && budget.num_extensions == 0) return "";
  const nlohmann::json object = {{"max_thinking_tokens", budget.max_thinking_tokens},
                                 {"num_extensions", budget.num_extensions},
                                 {"extension_text", budget.extension_text},
                                 {"end_of_thinking", budget.end_of_thinking},
                                 {"forced_stop_text", budget.forced_stop_text}};
  return object.dump();
}

}  // namespace assay::coordinator
