#include "coordinator/planner/plan_sweep.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <set>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/file.h"
#include "base/names.h"
#include "base/status.h"
#include "coordinator/planner/content_keys.h"
#include "coordinator/spec/benchmark_registry.h"
#include "coordinator/spec/method_rules.h"

namespace assay::coordinator {
namespace {

constexpr int64_t kMaxCombinations = 1'000'000;  // looked at, before restrictions and exclusions
constexpr size_t kMaxCells = 100'000;
constexpr int64_t kMaxUnits = 100'000'000;
constexpr size_t kMaxReportedErrors = 20;
// The plan carries each artifact's texts.
constexpr size_t kMaxCalibrationBytesOfPlan = size_t{1} << 30;
// Of an answer on a benchmark of one's own, before anything is measured.
constexpr double kUnknownTokens = 1000;

bool Allows(const std::vector<std::string>& sorted_names, const std::string& name) {
  return sorted_names.empty() || std::binary_search(sorted_names.begin(), sorted_names.end(), name);
}

class Planner {
 public:
  Planner(const SweepSpec& spec, const PlannerContext& context) : spec_(spec), context_(context) {}

  absl::StatusOr<PlannedSweep> Plan() {
    plan_.name = spec_.name;
    plan_.priority = spec_.priority;
    plan_.resolved_yaml = PrintSweepSpec(spec_);
    ASSAY_RETURN_IF_ERROR(CheckSize());
    ResolveModels();
    ResolveBenchmarks();
    ResolveCalibration();
    ASSAY_RETURN_IF_ERROR(CollectedErrors());

    for (size_t model = 0; model < spec_.models.size(); ++model) {
      for (const BenchmarkSpec& benchmark : BenchmarksOf(spec_.models[model])) {
        ASSAY_RETURN_IF_ERROR(PlanCells(model, benchmark));
      }
    }
    if (plan_.cells.empty()) {
      return InvalidArgument("{}no cells: every combination is excluded or restricted away",
                             spec_.At({}));
    }
    AddWarnings();
    return std::move(plan_);
  }

 private:
  using BenchmarkIdentity =
      std::tuple<std::string, std::string, std::string, std::string, int32_t, int32_t, std::string>;

  static BenchmarkIdentity Identity(const BenchmarkSpec& spec) {
    return {spec.name,  spec.path,      spec.prompt, spec.grader,
            spec.limit, spec.per_level, spec.version};
  }

  const std::vector<BenchmarkSpec>& BenchmarksOf(const ModelSpec& model) const {
    return model.benchmarks.empty() ? spec_.benchmarks : model.benchmarks;
  }

  absl::Status CheckSize() const {
    int64_t combinations = 0;
    for (const ModelSpec& model : spec_.models) {
      combinations += static_cast<int64_t>(BenchmarksOf(model).size() * (spec_.methods.size() + 1));
    }
    if (combinations <= kMaxCombinations) return absl::OkStatus();
    return InvalidArgument("{}{} combinations of model, method and benchmark; at most {}: split it",
                           spec_.At({}), combinations, kMaxCombinations);
  }

  // Remembers an error and goes on: a spec with three wrong names is told of all three.
  void AddError(const SpecPosition& where, const absl::Status& status) {
    errors_.push_back(absl::Status(status.code(), spec_.At(where) + Message(status)));
  }

  absl::Status CollectedErrors() const {
    if (errors_.empty()) return absl::OkStatus();
    std::string text;
    for (size_t i = 0; i < std::min(errors_.size(), kMaxReportedErrors); ++i) {
      text += (i == 0 ? "" : "\n") + Message(errors_[i]);
    }
    if (errors_.size() > kMaxReportedErrors) {
      text += fmt::format("\nand {} more errors", errors_.size() - kMaxReportedErrors);
    }
    return absl::Status(errors_.front().code(), text);
  }

  void ResolveModels() {
    std::map<std::string, SpecPosition> where_of_hash;
    for (const ModelSpec& model : spec_.models) {
      storage::ModelRecord record;
      record.name = model.name;
      record.path = model.path;
      absl::StatusOr<std::string> hash = context_.model_hash(record.place());
      if (!hash.ok()) {
        AddError(model.where, hash.status());
      } else {
        record.content_hash = *std::move(hash);
        const auto [same, is_new] = where_of_hash.emplace(record.content_hash, model.where);
        if (!is_new) {
          AddError(model.where, InvalidArgument("model '{}' has the same content as that of line "
                                                "{}; take one out",
                                                model.name, same->second.line));
        }
      }
      dimensions_.push_back(Dimensions(model, record.place()));
      CheckGang(model, dimensions_.back());
      plan_.models.push_back(std::move(record));
    }
  }

  // Empty when they are not known: the model is then taken to fit every slot of its gang's size.
  std::optional<ModelDimensions> Dimensions(const ModelSpec& model, const std::string& name) {
    if (!context_.model_dimensions) return std::nullopt;
    absl::StatusOr<ModelDimensions> dimensions = context_.model_dimensions(name);
    if (dimensions.ok()) return *dimensions;
    plan_.warnings.push_back(fmt::format("{}what model '{}' needs of a slot is not known: {}",
                                         spec_.At(model.where), model.name,
                                         Message(dimensions.status())));
    return std::nullopt;
  }

  // What the engine can divide over a gang (engine/parallel/sharding.h): a spec that nobody could
  // ever load is refused here, at its line.
  void CheckGang(const ModelSpec& model, const std::optional<ModelDimensions>& dimensions) {
    if (!dimensions) return;
    const int64_t size = model.tensor_parallel_size;
    const int64_t heads = dimensions->num_heads;
    const int64_t kv_heads = dimensions->num_kv_heads;
    if (heads % size == 0 && (kv_heads % size == 0 || size % kv_heads == 0) &&
        dimensions->intermediate_size % size == 0) {
      return;
    }
    AddError(model.where,
             InvalidArgument("model '{}': {} attention heads, {} KV heads and an intermediate size "
                             "of {} do not divide over tensor_parallel_size {}",
                             model.name, heads, kv_heads, dimensions->intermediate_size, size));
  }

  void ResolveBenchmarks() {
    for (const ModelSpec& model : spec_.models) {
      for (const BenchmarkSpec& benchmark : BenchmarksOf(model)) {
        if (benchmark_index_.contains(Identity(benchmark))) continue;
        absl::StatusOr<PlannedBenchmark> planned = ResolveBenchmark(benchmark);
        if (planned.ok()) {
          benchmark_index_[Identity(benchmark)] = AddBenchmark(*std::move(planned));
        } else {
          benchmark_index_[Identity(benchmark)] = -1;
          AddError(benchmark.where, planned.status());
        }
      }
    }
  }

  absl::StatusOr<PlannedBenchmark> ResolveBenchmark(const BenchmarkSpec& spec) {
    // A file is read once, however many subsets of it are used.
    auto [entry, is_new] = items_.try_emplace({spec.name, spec.path});
    if (is_new) entry->second = context_.benchmark_items(spec);
    if (!entry->second.ok()) return entry->second.status();
    const std::vector<BenchmarkItem>& items = *entry->second;
    const bool has_levels = std::any_of(
        items.begin(), items.end(), [](const BenchmarkItem& item) { return !item.level.empty(); });
    if (spec.per_level > 0 && !has_levels) {
      return InvalidArgument("benchmark '{}': its items have no level; use limit, not per_level",
                             spec.name);
    }
    PlannedBenchmark planned = MakeBenchmark(spec, SelectItems(items, spec.limit, spec.per_level));
    if (!planned.benchmark.version_hash.starts_with(spec.version)) {
      return InvalidArgument(
          "benchmark '{}' has version {}, and the spec pins {}: the items, prompt or grader are "
          "not those",
          spec.name, planned.benchmark.version_hash.substr(0, 16), spec.version);
    }
    return planned;
  }

  // A limit beyond the end is the whole benchmark, and so the same version.
  int AddBenchmark(PlannedBenchmark planned) {
    for (size_t i = 0; i < plan_.benchmarks.size(); ++i) {
      if (plan_.benchmarks[i].benchmark.version_hash == planned.benchmark.version_hash) {
        return static_cast<int>(i);
      }
    }
    plan_.benchmarks.push_back(std::move(planned));
    return static_cast<int>(plan_.benchmarks.size()) - 1;
  }

  void ResolveCalibration() {
    for (const MethodEntry& entry : spec_.methods) {
      const std::string& name = entry.method.calibration_set;
      if (name.empty() || calibration_.contains(name)) continue;
      absl::StatusOr<CalibrationSet> set = context_.calibration_set(name);
      if (!set.ok()) AddError(entry.where, set.status());
      calibration_[name] = set.ok() ? *std::move(set) : CalibrationSet();
    }
  }

  bool IsExcluded(const std::string& model, const storage::MethodRecord& method,
                  const std::string& benchmark) const {
    const auto matches = [](const std::string& pattern, const std::string& value) {
      return pattern.empty() || pattern == value;
    };
    return std::any_of(spec_.exclude.begin(), spec_.exclude.end(), [&](const Exclusion& e) {
      return matches(e.model, model) && matches(e.method, method.method) &&
             matches(e.bits, method.bits) && matches(e.benchmark, benchmark);
    });
  }

  // The cells of one model and one benchmark, baseline first.
  absl::Status PlanCells(size_t model, const BenchmarkSpec& benchmark) {
    const std::string& model_name = spec_.models[model].name;
    bool has_baseline = spec_.baseline;
    std::vector<const MethodEntry*> entries;
    for (const MethodEntry& entry : spec_.methods) {
      if (!Allows(entry.models, model_name) || !Allows(entry.benchmarks, benchmark.name)) continue;
      used_entries_.insert(&entry);
      if (entry.method.method == "bf16") {
        has_baseline = true;
      } else {
        entries.push_back(&entry);
      }
    }

    int baseline_index = -1;
    const storage::MethodRecord baseline = BaselineMethod();
    if (has_baseline && !IsExcluded(model_name, baseline, benchmark.name)) {
      baseline_index = static_cast<int>(plan_.cells.size());
      ASSAY_RETURN_IF_ERROR(
          AddCell(model, benchmark, baseline, /*artifact_index=*/-1, -1, spec_.At({})));
    }
    for (const MethodEntry* entry : entries) {
      if (IsExcluded(model_name, entry->method, benchmark.name)) continue;
      ASSAY_ASSIGN_OR_RETURN(const int artifact, AddArtifact(model, *entry));
      ASSAY_RETURN_IF_ERROR(AddCell(model, benchmark, entry->method, artifact, baseline_index,
                                    spec_.At(entry->where)));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<int> AddArtifact(size_t model, const MethodEntry& entry) {
    const CalibrationSet* calibration = nullptr;
    if (!entry.method.calibration_set.empty()) {
      calibration = &calibration_[entry.method.calibration_set];
    }
    storage::ArtifactRecord artifact;
    artifact.method = entry.method;
    artifact.calibration_hash = calibration == nullptr ? "" : calibration->hash;
    artifact.key = ArtifactKey(plan_.models[model].content_hash, artifact.method,
                               artifact.calibration_hash, context_.quantizer_version);
    // Without calibration a quantizer takes one tensor after the other and needs little.
    if (calibration != nullptr && dimensions_[model]) {
      artifact.memory_need_bytes =
          CalibrationNeedBytes(*dimensions_[model], spec_.models[model].tensor_parallel_size);
    }
    const auto [found, is_new] =
        artifact_index_.emplace(artifact.key, static_cast<int>(plan_.artifacts.size()));
    if (!is_new) return found->second;

    plan_.artifacts.push_back(std::move(artifact));
    plan_.calibration_jsonl.push_back(calibration == nullptr ? "" : calibration->jsonl);
    calibration_bytes_ += plan_.calibration_jsonl.back().size();
    if (calibration_bytes_ > kMaxCalibrationBytesOfPlan) {
      return InvalidArgument(
          "{}more than {} bytes of calibration texts in one sweep: use smaller sets or split it",
          spec_.At(entry.where), kMaxCalibrationBytesOfPlan);
    }
    return found->second;
  }

  absl::Status AddCell(size_t model, const BenchmarkSpec& benchmark,
                       const storage::MethodRecord& method, int artifact_index, int baseline_index,
                       const std::string& where) {
    if (plan_.cells.size() == kMaxCells) {
      return InvalidArgument("{}more than {} cells: split the sweep", spec_.At({}), kMaxCells);
    }
    PlannedCell cell;
    cell.model_index = static_cast<int>(model);
    cell.benchmark_index = benchmark_index_.at(Identity(benchmark));
    cell.artifact_index = artifact_index;
    cell.baseline_index = baseline_index;
    const storage::BenchmarkRecord& record =
        plan_.benchmarks[static_cast<size_t>(cell.benchmark_index)].benchmark;
    cell.num_items = record.num_items;
    cell.num_repeats = spec_.num_repeats(benchmark.name);
    cell.expected_tokens = std::llround(TokensPerRepeat(model, cell.benchmark_index) *
                                        static_cast<double>(cell.num_repeats));
    num_units_ += int64_t{cell.num_items} * cell.num_repeats;
    if (num_units_ > kMaxUnits) {
      return InvalidArgument("{}more than {} units: fewer repeats, or split the sweep",
                             spec_.At({}), kMaxUnits);
    }

    cell.cell.method = method;
    cell.cell.sampling = spec_.sampling;
    cell.cell.tensor_parallel_size = spec_.models[model].tensor_parallel_size;
    cell.cell.engine_numerics_version = spec_.device == Device::kCuda
                                            ? context_.cuda_numerics_version
                                            : context_.cpu_numerics_version;
    if (dimensions_[model]) {
      cell.cell.memory_need_bytes = MemoryNeedBytes(*dimensions_[model], cell.cell);
      cell.cell.cpu_memory_need_bytes = CpuMemoryNeedBytes(*dimensions_[model], cell.cell);
    }
    cell.cell.key = CellKey(
        plan_.models[model].content_hash,
        artifact_index < 0 ? "" : plan_.artifacts[static_cast<size_t>(artifact_index)].key, record,
        spec_.sampling, cell.cell.tensor_parallel_size, cell.cell.engine_numerics_version);
    if (!cell_keys_.insert(cell.cell.key).second) {
      return InvalidArgument("{}{} {} of model {} on {} is in the sweep twice", where, method.label,
                             method.bits, spec_.models[model].name, benchmark.name);
    }
    plan_.cells.push_back(std::move(cell));
    return absl::OkStatus();
  }

  // Expected tokens of all items of a benchmark, once: measured where they are, else the mean of
  // those measured, else a guess.
  double TokensPerRepeat(size_t model, int benchmark_index) {
    const auto [entry, is_new] = tokens_.try_emplace({model, benchmark_index}, 0.0);
    if (!is_new) return entry->second;
    const storage::BenchmarkRecord& benchmark =
        plan_.benchmarks[static_cast<size_t>(benchmark_index)].benchmark;
    std::vector<double> measured;
    if (context_.mean_item_tokens) {
      measured =
          context_.mean_item_tokens(plan_.models[model].content_hash, benchmark.version_hash);
    }
    measured.resize(static_cast<size_t>(benchmark.num_items));
    double sum = 0;
    int64_t num_measured = 0;
    for (const double tokens : measured) {
      if (tokens > 0) {
        sum += tokens;
        ++num_measured;
      }
    }
    const BenchmarkDefinition* definition = FindBenchmarkDefinition(benchmark.name);
    const double guess =
        std::min(definition != nullptr ? definition->typical_tokens : kUnknownTokens,
                 static_cast<double>(spec_.sampling.max_tokens));
    const double mean = num_measured > 0 ? sum / static_cast<double>(num_measured) : guess;
    entry->second = mean * benchmark.num_items;
    return entry->second;
  }

  void AddWarnings() {
    for (const MethodEntry& entry : spec_.methods) {
      if (used_entries_.contains(&entry)) continue;
      plan_.warnings.push_back(
          fmt::format("{}{} {} makes no cell: no model that it names has a benchmark that it names",
                      spec_.At(entry.where), entry.method.label, entry.method.bits));
    }
    const bool repeats = std::any_of(plan_.cells.begin(), plan_.cells.end(),
                                     [](const PlannedCell& cell) { return cell.num_repeats > 1; });
    if (spec_.sampling.temperature == 0 && repeats) {
      plan_.warnings.push_back(spec_.At({}) +
                               "temperature 0 gives every repeat the same answer; use repeats: 1");
    }
    for (const ModelSpec& model : spec_.models) {
      // The one model of the study with a top_k.
      const bool is_qwq = (model.name + model.path).find("QwQ") != std::string::npos;
      if (is_qwq && spec_.sampling.top_k != 30) {
        plan_.warnings.push_back(
            fmt::format("{}QwQ is sampled with top_k 30 in the study, and "
                        "this sweep has top_k {}",
                        spec_.At(model.where), spec_.sampling.top_k));
      }
    }
  }

  const SweepSpec& spec_;
  const PlannerContext& context_;
  PlannedSweep plan_;
  std::vector<std::optional<ModelDimensions>> dimensions_;  // by model
  std::vector<absl::Status> errors_;
  std::map<BenchmarkIdentity, int> benchmark_index_;
  std::map<std::pair<std::string, std::string>, absl::StatusOr<std::vector<BenchmarkItem>>> items_;
  std::map<std::string, CalibrationSet> calibration_;
  std::unordered_map<std::string, int> artifact_index_;
  std::unordered_set<std::string> cell_keys_;
  std::unordered_set<const MethodEntry*> used_entries_;
  std::map<std::pair<size_t, int>, double> tokens_;
  size_t calibration_bytes_ = 0;
  int64_t num_units_ = 0;
};

}  // namespace

PlannerContext FileContext(PlannerRoots roots, ModelHasher* hasher) {
  const auto shared = std::make_shared<const PlannerRoots>(std::move(roots));
  PlannerContext context;
  context.model_hash = [shared, hasher](const std::string& model) -> absl::StatusOr<std::string> {
    absl::StatusOr<std::string> folder = FindModel(shared->models, model);
    if (!folder.ok()) {
      const std::string hint = DidYouMean(model, ListModels(shared->models));
      return absl::Status(folder.status().code(), Message(folder.status()) + hint);
    }
    return hasher->Hash(*folder);
  };
  context.model_dimensions = [shared](const std::string& model) -> absl::StatusOr<ModelDimensions> {
    ASSAY_ASSIGN_OR_RETURN(const std::string folder, FindModel(shared->models, model));
    ASSAY_ASSIGN_OR_RETURN(const std::string json, ReadFile(folder + "/config.json"));
    return ParseModelDimensions(json, model + "/config.json");
  };
  context.benchmark_items = [shared](const BenchmarkSpec& benchmark) {
    return LoadBenchmark(shared->benchmarks, benchmark);
  };
  context.calibration_set = [shared](const std::string& name) {
    return LoadCalibrationSet(shared->calibration, name);
  };
  return context;
}

absl::StatusOr<PlannedSweep> PlanSweep(const SweepSpec& spec, const PlannerContext& context) {
  return Planner(spec, context).Plan();
}

}  // namespace assay::coordinator
