#include "coordinator/api/convert_worker.h"

#include <google/protobuf/util/json_util.h>

#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/status.h"
#include "base/version.h"
#include "coordinator/api/limits.h"
#include "storage/stores/check_sample.h"

namespace assay::coordinator {
namespace {

void FillUnitKey(const storage::UnitId& unit, v1::UnitKey* key) {
  key->set_cell_id(unit.cell_id);
  key->set_item_index(unit.item_index);
  key->set_repeat(unit.repeat);
}

storage::UnitId FromProto(const v1::UnitKey& key) {
  return {key.cell_id(), key.item_index(), key.repeat()};
}

SlotPhase FromProto(v1::SlotState::Phase phase) {
  switch (phase) {
    case v1::SlotState::PHASE_IDLE:
      return SlotPhase::kIdle;
    case v1::SlotState::PHASE_LOADING:
      return SlotPhase::kLoading;
    case v1::SlotState::PHASE_RUNNING:
      return SlotPhase::kRunning;
    case v1::SlotState::PHASE_QUANTIZING:
      return SlotPhase::kQuantizing;
    case v1::SlotState::PHASE_RESTARTING:
      return SlotPhase::kRestarting;
    default:
      return SlotPhase::kUnknown;
  }
}

storage::SampleRecord FromProto(const v1::Sample& sample, const std::string& worker_id,
                                const std::string& incarnation) {
  storage::SampleRecord record;
  record.unit = FromProto(sample.unit());
  record.lease_id = sample.lease_id();
  record.epoch = sample.epoch();
  record.worker_id = worker_id;
  record.incarnation = incarnation;
  record.text_zstd = sample.text_zstd();
  record.token_ids_zstd = sample.token_ids_zstd();
  record.prompt_sha256 = sample.prompt_sha256();
  record.prompt_tokens = sample.prompt_tokens();
  record.completion_tokens = sample.completion_tokens();
  record.thinking_tokens = sample.thinking_tokens();
  record.finish_reason = sample.finish_reason();
  record.seed = sample.seed();
  record.queue_us = sample.queue_us();
  record.ttft_us = sample.ttft_us();
  record.e2e_us = sample.e2e_us();
  record.mean_batch_size = sample.mean_batch_size();
  record.num_preemptions = sample.num_preemptions();
  record.finished_time_us = sample.finished_time_us();
  if (sample.has_grade()) {
    const v1::Grade& grade = sample.grade();
    record.grade =
        storage::GradeRecord{grade.grader(),    grade.grader_version(), grade.verdict(),
                             grade.extracted(), grade.detail(),         grade.duration_us()};
  }
  return record;
}

void FillModelRef(const CellContext& cell, v1::ModelRef* model) {
  model->set_name(cell.model.place());
  model->set_model_hash(cell.model.content_hash);
  if (cell.artifact) model->set_artifact_key(cell.artifact->key);
  *model->mutable_method() = ToProto(cell.cell.method);
  model->set_tensor_parallel_size(cell.cell.tensor_parallel_size);
  model->set_engine_numerics_version(cell.cell.engine_numerics_version);
}

void FillSampling(const storage::SamplingRecord& record, v1::Grant* grant) {
  v1::Sampling* sampling = grant->mutable_sampling();
  sampling->set_temperature(record.temperature);
  sampling->set_top_p(record.top_p);
  sampling->set_top_k(record.top_k);
  sampling->set_max_tokens(record.max_tokens);
  sampling->set_max_model_len(record.max_model_len);
  sampling->set_seed(record.seed);
  if (record.budget_forcing_json.empty()) return;
  const auto parsed = google::protobuf::util::JsonStringToMessage(record.budget_forcing_json,
                                                                  grant->mutable_budget_forcing());
  // The planner wrote it.
  ASSAY_CHECK(parsed.ok(), "budget_forcing_json: {}", parsed.ToString());
}

void Fill(const WelcomeMessage& message, const ControlPlane::Options& options,
          v1::SyncResponse* response) {
  v1::Welcome* welcome = response->mutable_welcome();
  welcome->set_protocol_revision(message.protocol_revision);
  welcome->set_heartbeat_interval_us(absl::ToInt64Microseconds(options.heartbeat_interval));
  welcome->set_lease_ttl_us(absl::ToInt64Microseconds(options.lease_ttl));
  welcome->set_max_unreported_samples(options.max_unreported_samples);
  welcome->set_coordinator_version(Version());
}

void Fill(const GrantMessage& message, const ControlPlane::Options&, v1::SyncResponse* response) {
  v1::Grant* grant = response->mutable_grant();
  grant->set_lease_id(message.lease_id);
  grant->set_slot_index(message.slot_index);
  grant->set_cell_id(message.cell->cell.id);
  FillModelRef(*message.cell, grant->mutable_model());
  FillSampling(message.cell->cell.sampling, grant);
  grant->set_grader(message.cell->benchmark.grader);
  for (const UnitGrant& granted : message.units) {
    v1::Unit* unit = grant->add_units();
    FillUnitKey(granted.unit, unit->mutable_key());
    unit->set_epoch(granted.epoch);
    unit->set_seed(granted.seed);
    unit->set_user_text(granted.user_text);
    unit->set_gold(granted.gold);
    unit->set_expected_tokens(granted.expected_tokens);
  }
}

void Fill(const JobMessage& message, const ControlPlane::Options&, v1::SyncResponse* response) {
  v1::JobGrant* job = response->mutable_job();
  job->set_job_id(message.job_id);
  job->set_epoch(message.epoch);
  job->set_slot_index(message.slot_index);
  FillModelRef(*message.cell, job->mutable_quantize()->mutable_model());
  job->mutable_quantize()->set_calibration_jsonl(message.calibration_jsonl);
}

void Fill(const RevokeMessage& message, const ControlPlane::Options&, v1::SyncResponse* response) {
  response->mutable_revoke()->set_lease_id(message.lease_id);
  for (const storage::UnitId& unit : message.units) {
    FillUnitKey(unit, response->mutable_revoke()->add_units());
  }
}

void Fill(const AcknowledgeMessage& message, const ControlPlane::Options&,
          v1::SyncResponse* response) {
  response->mutable_acknowledge()->set_sequence(message.sequence);
}

void Fill(const DrainMessage&, const ControlPlane::Options&, v1::SyncResponse* response) {
  response->mutable_drain();
}

void Fill(const ShutdownMessage& message, const ControlPlane::Options&,
          v1::SyncResponse* response) {
  response->mutable_shutdown()->set_reason(message.reason);
}

}  // namespace

HelloCommand FromProto(const v1::Hello& hello) {
  HelloCommand command;
  command.hello.worker_id = hello.worker_id();
  command.hello.incarnation = hello.incarnation();
  command.hello.version = hello.version();
  command.hello.device = hello.provenance().device();
  for (const v1::Slot& slot : hello.slots()) {
    // 0 says that the worker does not count gangs.
    command.hello.slots.push_back(
        {slot.index(), std::max(slot.tensor_parallel_size(), 1), slot.memory_bytes(), slot.device(),
         hello.provenance().backend() == "cpu", hello.provenance().engine_numerics_version()});
  }
  command.protocol_revision = hello.protocol_revision();
  const v1::Provenance& provenance = hello.provenance();
  command.provenance = {provenance.git_commit(),     provenance.assay_version(),
                        provenance.build_type(),     provenance.compiler(),
                        provenance.hostname(),       provenance.device(),
                        provenance.backend(),        provenance.engine_numerics_version(),
                        provenance.driver_versions()};
  return command;
}

HeartbeatCommand FromProto(const v1::Heartbeat& heartbeat, const std::string& worker_id,
                           const std::string& incarnation) {
  HeartbeatCommand command;
  command.heartbeat.worker_id = worker_id;
  command.heartbeat.incarnation = incarnation;
  command.heartbeat.draining = heartbeat.draining();
  command.heartbeat.num_spooled_samples = heartbeat.num_spooled_samples();
  for (const v1::SlotState& slot : heartbeat.slots()) {
    command.heartbeat.slots.push_back({slot.index(), FromProto(slot.phase()),
                                       slot.loaded_artifact_key(), slot.num_running_units(),
                                       slot.num_waiting_units(), slot.num_free_lanes(),
                                       slot.tokens_per_s(), slot.memory_used_bytes()});
  }
  for (const v1::LeaseProgress& lease : heartbeat.leases()) {
    command.heartbeat.leases.push_back({lease.lease_id(), lease.tokens_generated()});
  }
  for (const v1::UnitFailure& failure : heartbeat.failures()) {
    command.failures.push_back({failure.lease_id(), FromProto(failure.unit()), failure.epoch(),
                                failure.message().substr(0, kMaxMessageText),
                                failure.infrastructure()});
  }
  command.sequence = heartbeat.sequence();
  return command;
}

absl::StatusOr<ReportCommand> FromProto(const v1::ReportSamplesRequest& request) {
  ReportCommand command;
  command.worker_id = request.worker_id();
  command.incarnation = request.incarnation();
  command.samples.reserve(static_cast<size_t>(request.samples_size()));
  for (const v1::Sample& sample : request.samples()) {
    command.samples.push_back(FromProto(sample, request.worker_id(), request.incarnation()));
    ASSAY_RETURN_IF_ERROR(storage::CheckSample(command.samples.back()));
  }
  return command;
}

JobReport FromProto(const v1::CompleteJobRequest& request) {
  return {request.worker_id(),
          request.incarnation(),
          request.job_id(),
          request.epoch(),
          request.error().substr(0, kMaxMessageText),
          request.infrastructure(),
          request.artifact_key(),
          request.artifact_manifest_sha256(),
          request.duration_us()};
}

v1::SyncResponse ToProto(const OutgoingMessage& message, const ControlPlane::Options& options) {
  v1::SyncResponse response;
  std::visit([&](const auto& body) { Fill(body, options, &response); }, message.body);
  return response;
}

v1::QuantMethod ToProto(const storage::MethodRecord& method) {
  v1::QuantMethod proto;
  proto.set_method(method.method);
  proto.set_bits(method.bits);
  proto.set_group_size(method.group_size);
  proto.set_symmetric(method.symmetric);
  proto.set_pre_bias(method.pre_bias);
  proto.set_virtual_shards(method.virtual_shards);
  proto.set_calibration_set(method.calibration_set);
  if (method.parameters_json.empty()) return proto;
  const nlohmann::json parameters = nlohmann::json::parse(method.parameters_json, nullptr, false);
  if (!parameters.is_object()) return proto;
  for (const auto& [key, value] : parameters.items()) {
    (*proto.mutable_parameters())[key] =
        value.is_string() ? value.get<std::string>() : value.dump();
  }
  return proto;
}

v1::Provenance ToProto(const storage::ProvenanceRecord& record) {
  v1::Provenance provenance;
  provenance.set_git_commit(record.git_commit);
  provenance.set_assay_version(record.assay_version);
  provenance.set_build_type(record.build_type);
  provenance.set_compiler(record.compiler);
  provenance.set_hostname(record.hostname);
  provenance.set_device(record.device);
  provenance.set_backend(record.backend);
  provenance.set_engine_numerics_version(record.engine_numerics_version);
  provenance.set_driver_versions(record.driver_versions);
  return provenance;
}

v1::Grade ToProto(const storage::GradeRecord& record) {
  v1::Grade grade;
  grade.set_grader(record.grader);
  grade.set_grader_version(record.grader_version);
  grade.set_verdict(static_cast<v1::Grade::Verdict>(record.verdict));
  grade.set_extracted(record.extracted);
  grade.set_detail(record.detail);
  grade.set_duration_us(record.duration_us);
  return grade;
}

}  // namespace assay::coordinator
