#include "coordinator/api/make_plan.h"

#include <charconv>
#include <map>
#include <set>

#include "base/status.h"
#include "coordinator/api/convert_worker.h"
#include "coordinator/scheduler/slot_policy.h"

namespace assay::coordinator {
namespace {

// Of the fleet now, or as it was last seen; 0 when no worker was ever here.
absl::StatusOr<double> TokensPerSecond(const ApiContext& api, storage::ReadStore& store) {
  const std::shared_ptr<const LiveSnapshot> present = api.loop->Snapshot();
  if (present && present->tokens_per_s > 0) return present->tokens_per_s;
  ASSAY_ASSIGN_OR_RETURN(const std::string stored, store.GetMeta("tokens_per_s"));
  double tokens_per_s = 0;
  std::from_chars(stored.data(), stored.data() + stored.size(), tokens_per_s);
  return tokens_per_s;
}

// Cells that no slot of the present fleet can hold, by the reason. Without a fleet there is nothing
// to compare with.
void WarnOfSlots(const ApiContext& api, const PlannedSweep& sweep, v1::Plan* plan) {
  const std::shared_ptr<const LiveSnapshot> present = api.loop->Snapshot();
  std::set<SlotShape> shapes;
  for (const LiveWorker& worker : present ? present->workers : std::vector<LiveWorker>()) {
    if (!worker.online || worker.draining) continue;
    for (const SlotInfo& slot : worker.slots) shapes.insert(slot.shape());
  }
  if (shapes.empty()) return;
  std::map<std::string, int> num_cells;  // by reason
  for (const PlannedCell& cell : sweep.cells) {
    const std::string reason =
        WhyNoSlotFits({cell.cell.tensor_parallel_size, cell.cell.memory_need_bytes,
                       cell.cell.cpu_memory_need_bytes, cell.cell.engine_numerics_version},
                      shapes);
    if (!reason.empty()) ++num_cells[reason];
  }
  for (const auto& [reason, count] : num_cells) {
    plan->add_warnings(fmt::format("{} of {} cells will wait for another worker: each {}", count,
                                   sweep.cells.size(), reason));
  }
}

}  // namespace

absl::StatusOr<MadePlan> MakePlan(const ApiContext& api, storage::ReadStore& store,
                                  const std::string& spec_yaml, const std::string& spec_name) {
  ASSAY_ASSIGN_OR_RETURN(const SweepSpec spec,
                         ParseSweepSpec(spec_yaml, spec_name.empty() ? "spec" : spec_name));
  PlannerContext context = FileContext(api.roots, api.hasher);
  context.mean_item_tokens = [&store](const std::string& model_hash,
                                      const std::string& benchmark_version) {
    // Without lengths a plan is only less exact.
    return store.MeanBaselineTokens(model_hash, benchmark_version).value_or(std::vector<double>());
  };
  MadePlan made;
  absl::StatusOr<PlannedSweep> planned = PlanSweep(spec, context);
  // What a spec names and nobody has is an error of the spec, at a place in it.
  if (planned.status().code() == absl::StatusCode::kNotFound) {
    return InvalidArgument("{}", Message(planned.status()));
  }
  ASSAY_ASSIGN_OR_RETURN(made.sweep, std::move(planned));
  made.owner = spec.owner;

  v1::Plan& plan = made.proto;
  plan.set_name(made.sweep.name);
  plan.set_resolved_yaml(made.sweep.resolved_yaml);
  for (const std::string& warning : made.sweep.warnings) plan.add_warnings(warning);
  WarnOfSlots(api, made.sweep, &plan);
  std::vector<bool> artifact_cached;
  for (const storage::ArtifactRecord& artifact : made.sweep.artifacts) {
    ASSAY_ASSIGN_OR_RETURN(const std::optional<storage::ArtifactRecord> stored,
                           store.FindArtifact(artifact.key));
    artifact_cached.push_back(stored && stored->state == storage::ArtifactState::kReady);
    plan.set_num_quantize_jobs(plan.num_quantize_jobs() + 1);
    if (artifact_cached.back())
      plan.set_num_quantize_jobs_cached(plan.num_quantize_jobs_cached() + 1);
  }
  double tokens_left = 0;
  for (const PlannedCell& cell : made.sweep.cells) {
    v1::PlannedCell* added = plan.add_cells();
    added->set_model(made.sweep.models.at(static_cast<size_t>(cell.model_index)).name);
    *added->mutable_method() = ToProto(cell.cell.method);
    added->set_benchmark(
        made.sweep.benchmarks.at(static_cast<size_t>(cell.benchmark_index)).benchmark.name);
    added->set_num_items(cell.num_items);
    added->set_num_repeats(cell.num_repeats);
    ASSAY_ASSIGN_OR_RETURN(const int64_t num_cached,
                           store.NumCachedUnits(cell.cell.key, cell.num_items, cell.num_repeats));
    added->set_num_units_cached(num_cached);
    added->set_cell_key(cell.cell.key);
    if (cell.artifact_index >= 0) {
      const auto index = static_cast<size_t>(cell.artifact_index);
      added->set_artifact_key(made.sweep.artifacts.at(index).key);
      added->set_artifact_cached(artifact_cached.at(index));
    }
    added->set_expected_tokens(cell.expected_tokens);
    added->set_tensor_parallel_size(cell.cell.tensor_parallel_size);
    added->set_memory_need_bytes(cell.cell.memory_need_bytes);
    added->set_engine_numerics_version(cell.cell.engine_numerics_version);
    const int64_t num_units = int64_t{cell.num_items} * cell.num_repeats;
    plan.set_num_units(plan.num_units() + num_units);
    plan.set_num_units_cached(plan.num_units_cached() + num_cached);
    plan.set_expected_tokens(plan.expected_tokens() + cell.expected_tokens);
    if (num_units > 0) {
      tokens_left += static_cast<double>(cell.expected_tokens) *
                     static_cast<double>(num_units - num_cached) / static_cast<double>(num_units);
    }
  }
  ASSAY_ASSIGN_OR_RETURN(const double tokens_per_s, TokensPerSecond(api, store));
  if (tokens_per_s > 0) {
    plan.set_expected_duration_us(static_cast<int64_t>(tokens_left / tokens_per_s * 1e6));
  }
  return made;
}

}  // namespace assay::coordinator
