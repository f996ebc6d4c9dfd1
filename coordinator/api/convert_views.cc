#include "coordinator/api/convert_views.h"

#include "coordinator/api/convert_worker.h"

namespace assay::coordinator {
namespace {

v1::CellStatus::State StateOf(const LiveCell& cell, bool paused) {
  if (cell.num_done == cell.num_units()) return v1::CellStatus::STATE_DONE;
  if (cell.num_running > 0) return v1::CellStatus::STATE_RUNNING;
  if (cell.artifact_failed || cell.num_queued == 0) return v1::CellStatus::STATE_FAILED;
  if (paused) return v1::CellStatus::STATE_PAUSED;
  if (cell.waits_for_artifact) return v1::CellStatus::STATE_WAITING;
  return v1::CellStatus::STATE_QUEUED;
}

v1::SlotState::Phase ToProto(SlotPhase phase) {
  switch (phase) {
    case SlotPhase::kIdle:
      return v1::SlotState::PHASE_IDLE;
    case SlotPhase::kLoading:
      return v1::SlotState::PHASE_LOADING;
    case SlotPhase::kRunning:
      return v1::SlotState::PHASE_RUNNING;
    case SlotPhase::kQuantizing:
      return v1::SlotState::PHASE_QUANTIZING;
    case SlotPhase::kRestarting:
      return v1::SlotState::PHASE_RESTARTING;
    case SlotPhase::kUnknown:
      break;
  }
  return v1::SlotState::PHASE_UNSPECIFIED;
}

}  // namespace

v1::Sweep ToProto(const storage::SweepRecord& record) {
  v1::Sweep sweep;
  sweep.set_id(record.sweep_id);
  sweep.set_name(record.name);
  sweep.set_owner(record.owner);
  sweep.set_priority(record.priority);
  sweep.set_state(static_cast<v1::SweepState>(record.state));
  sweep.set_created_time_us(record.created_time_us);
  sweep.set_finished_time_us(record.finished_time_us);
  return sweep;
}

void AddCounts(const LiveSweep& live, bool with_cells, v1::Sweep* sweep) {
  sweep->set_num_units(live.num_units);
  sweep->set_num_units_done(live.num_done);
  sweep->set_num_units_running(live.num_running);
  sweep->set_num_units_quarantined(live.num_quarantined);
  sweep->set_tokens_done(live.tokens_done);
  sweep->set_tokens_expected(live.tokens_expected);
  sweep->set_tokens_per_s(live.tokens_per_s);
  sweep->set_eta_us(live.eta_us);
  sweep->set_num_rerolls(live.num_rerolls);
  if (!with_cells) return;
  for (const LiveCell& cell : live.cells) {
    v1::CellStatus* status = sweep->add_cells();
    status->set_cell_id(cell.context->cell.id);
    status->set_model(cell.context->model.name);
    *status->mutable_method() = ToProto(cell.context->cell.method);
    status->set_benchmark(cell.context->benchmark.name);
    status->set_state(StateOf(cell, live.paused));
    status->set_num_units(cell.num_units());
    status->set_num_units_done(cell.num_done);
    status->set_num_units_running(cell.num_running);
    status->set_num_units_quarantined(cell.num_quarantined);
    status->set_num_correct(cell.num_correct);
    status->set_tokens_done(cell.tokens_done);
    status->set_cell_key(cell.context->cell.key);
    status->set_error(cell.error);
    status->set_waiting_reason(cell.waiting_reason);
    status->set_num_rerolls(cell.num_rerolls);
  }
}

void AddCounts(const std::vector<storage::SweepCellSummary>& cells, storage::SweepState state,
               bool with_cells, v1::Sweep* sweep) {
  int64_t num_units = 0;
  storage::CellCounts total;
  for (const storage::SweepCellSummary& summary : cells) {
    const storage::CellCounts& counts = summary.cell.counts;
    num_units += summary.num_units();
    total.num_done += counts.num_done;
    total.num_leased += counts.num_leased;
    total.num_quarantined += counts.num_quarantined;
    total.num_rerolls += counts.num_rerolls;
    total.completion_tokens += counts.completion_tokens;
    if (!with_cells) continue;
    v1::CellStatus* status = sweep->add_cells();
    status->set_cell_id(summary.cell.cell.id);
    status->set_model(summary.cell.model.name);
    *status->mutable_method() = ToProto(summary.cell.cell.method);
    status->set_benchmark(summary.cell.benchmark.name);
    if (counts.num_done == summary.num_units()) {
      status->set_state(v1::CellStatus::STATE_DONE);
    } else if (state == storage::SweepState::kCancelled) {
      status->set_state(v1::CellStatus::STATE_CANCELLED);
    } else {
      status->set_state(v1::CellStatus::STATE_FAILED);
    }
    status->set_num_units(summary.num_units());
    status->set_num_units_done(counts.num_done);
    status->set_num_units_running(counts.num_leased);
    status->set_num_units_quarantined(counts.num_quarantined);
    status->set_num_correct(counts.num_correct);
    status->set_tokens_done(counts.completion_tokens);
    status->set_cell_key(summary.cell.cell.key);
    status->set_error(summary.cell.job_error);
    status->set_num_rerolls(counts.num_rerolls);
  }
  sweep->set_num_units(num_units);
  sweep->set_num_units_done(total.num_done);
  sweep->set_num_units_running(total.num_leased);
  sweep->set_num_units_quarantined(total.num_quarantined);
  sweep->set_tokens_done(total.completion_tokens);
  sweep->set_tokens_expected(total.completion_tokens);
  sweep->set_num_rerolls(total.num_rerolls);
}

v1::Worker ToProto(const LiveWorker& live, int64_t now_us) {
  v1::Worker worker;
  worker.set_worker_id(live.worker_id);
  worker.set_incarnation(live.incarnation);
  worker.set_state(!live.online    ? v1::Worker::STATE_OFFLINE
                   : live.draining ? v1::Worker::STATE_DRAINING
                                   : v1::Worker::STATE_ONLINE);
  worker.set_version(live.version);
  worker.set_device(live.device);
  if (!live.slots.empty()) worker.set_engine_numerics_version(live.slots[0].numerics_version);
  for (const SlotInfo& info : live.slots) {
    v1::Slot* slot = worker.add_slots();
    slot->set_index(info.index);
    slot->set_tensor_parallel_size(info.tensor_parallel_size);
    slot->set_memory_bytes(info.memory_bytes);
    slot->set_device(info.device);
  }
  for (const SlotStatus& status : live.slot_states) {
    v1::SlotState* state = worker.add_slot_states();
    state->set_index(status.index);
    state->set_phase(ToProto(status.phase));
    state->set_loaded_artifact_key(status.loaded_artifact_key);
    state->set_num_running_units(status.num_running);
    state->set_num_waiting_units(status.num_waiting);
    state->set_num_free_lanes(status.num_free_lanes);
    state->set_tokens_per_s(status.tokens_per_s);
    state->set_memory_used_bytes(status.memory_used_bytes);
  }
  worker.set_last_seen_time_us(now_us - live.silent_us);
  worker.set_num_leases(live.num_leases);
  worker.set_num_units(live.num_units);
  worker.set_tokens_per_s(live.tokens_per_s);
  worker.set_num_samples(live.num_samples);
  return worker;
}

v1::Worker OfflineWorker(const storage::WorkerRecord& record) {
  v1::Worker worker;
  worker.set_worker_id(record.worker_id);
  worker.set_incarnation(record.incarnation);
  worker.set_state(v1::Worker::STATE_OFFLINE);
  worker.set_version(record.version);
  worker.set_last_seen_time_us(record.last_seen_time_us);
  return worker;
}

v1::Event ToProto(const storage::EventRecord& record) {
  v1::Event event;
  event.set_id(record.id);
  event.set_time_us(record.time_us);
  event.set_kind(record.kind);
  event.set_sweep_id(record.sweep_id);
  event.set_cell_id(record.cell_id);
  event.set_worker_id(record.worker_id);
  event.set_detail(record.detail_json);
  return event;
}

v1::ResultRow ToProto(const ResultRow& from) {
  v1::ResultRow row;
  row.set_cell_id(from.cell_id);
  row.set_model(from.model);
  row.set_method(from.method);
  row.set_bits(from.bits);
  row.set_benchmark(from.benchmark);
  row.set_group(from.group);
  row.set_num_samples(from.num_samples);
  row.set_num_correct(from.num_correct);
  row.set_accuracy(from.accuracy);
  row.set_ci_low(from.ci_low);
  row.set_ci_high(from.ci_high);
  row.set_has_drop(from.has_drop);
  row.set_drop(from.drop);
  row.set_drop_ci_low(from.drop_ci_low);
  row.set_drop_ci_high(from.drop_ci_high);
  row.set_label(from.label);
  row.set_mean_output_tokens(from.mean_output_tokens);
  row.set_num_truncated(from.num_truncated);
  row.set_num_ungradable(from.num_ungradable);
  row.set_num_stored(from.num_stored);
  row.set_num_rerolled(from.num_rerolled);
  row.set_num_units(from.num_units);
  row.set_mcnemar_p(from.mcnemar_p);
  return row;
}

v1::SampleSummary ToProto(const storage::SampleSummary& from) {
  v1::SampleSummary sample;
  sample.set_sample_id(from.sample_id);
  sample.set_cell_id(from.unit.cell_id);
  sample.set_model(from.model);
  sample.set_method(from.method.label);
  sample.set_bits(from.method.bits);
  sample.set_benchmark(from.benchmark);
  sample.set_item(from.item);
  sample.set_item_index(from.unit.item_index);
  sample.set_repeat(from.unit.repeat);
  sample.set_level(from.level);
  if (from.grade) *sample.mutable_grade() = ToProto(*from.grade);
  sample.set_finish_reason(static_cast<v1::FinishReason>(from.finish_reason));
  sample.set_prompt_tokens(from.prompt_tokens);
  sample.set_completion_tokens(from.completion_tokens);
  sample.set_thinking_tokens(from.thinking_tokens);
  sample.set_ttft_us(from.ttft_us);
  sample.set_e2e_us(from.e2e_us);
  return sample;
}

}  // namespace assay::coordinator
