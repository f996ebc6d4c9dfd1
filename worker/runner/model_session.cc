#include "worker/runner/model_session.h"

#include <algorithm>
#include <filesystem>

#include "base/hash.h"
#include "base/log.h"
#include "base/status.h"
#include "storage/text/text_codec.h"

namespace assay::worker {
namespace {

constexpr int kDefaultMaxNumSeqs = 64;

std::tuple<int64_t, int32_t, int32_t> KeyOf(const v1::UnitKey& key) {
  return {key.cell_id(), key.item_index(), key.repeat()};
}

// Bytes of the weights as they are stored, which is how they are held.
int64_t WeightBytes(const std::string& model_dir) {
  int64_t total = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator it(model_dir, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().extension() != ".safetensors") continue;
    const auto size = it->file_size(error);
    if (!error) total += static_cast<int64_t>(size);
  }
  return total;
}

absl::StatusOr<engine::EngineOptions> EngineOptionsFor(const v1::LoadModel& command) {
  engine::EngineOptions options;
  options.num_threads = std::max(command.num_threads(), 1);
  options.max_num_seqs = command.max_num_seqs() > 0 ? command.max_num_seqs() : kDefaultMaxNumSeqs;
  options.max_model_len = command.max_model_len();
  if (command.memory_bytes() > 0) {
    const int64_t weight_bytes = WeightBytes(command.model_dir());
    options.kv_cache_bytes = command.memory_bytes() - weight_bytes;
    if (options.kv_cache_bytes <= 0) {
      return ResourceExhausted("{}: {} bytes of weights do not fit into {} bytes",
                               command.model_dir(), weight_bytes, command.memory_bytes());
    }
  }
  return options;
}

// SHA-256 over the ids as little-endian int32, as raw bytes.
std::string HashOfIds(const std::vector<int32_t>& ids) {
  std::string bytes;
  bytes.reserve(ids.size() * 4);
  for (int32_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      bytes.push_back(static_cast<char>(static_cast<uint32_t>(id) >> shift));
    }
  }
  const std::string hex = Sha256Hex(bytes);
  std::string raw;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    raw.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return raw;
}

v1::FinishReason ToProto(engine::FinishReason reason) {
  switch (reason) {
    case engine::FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case engine::FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case engine::FinishReason::kContext:
      return v1::FINISH_REASON_CONTEXT;
    case engine::FinishReason::kRejected:
      return v1::FINISH_REASON_REJECTED;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

engine::BudgetForcingParams ToEngine(const v1::BudgetForcing& forcing, const ModelText& text) {
  engine::BudgetForcingParams params;
  params.max_thinking_tokens = forcing.max_thinking_tokens();
  params.num_extensions = forcing.num_extensions();
  if (!params.enabled()) return params;
  const std::string& end =
      forcing.end_of_thinking().empty() ? kEndOfThinking : forcing.end_of_thinking();
  params.end_of_thinking_ids = text.Encode(end, false);
  params.extension_ids = text.Encode(forcing.extension_text(), false);
  params.forced_stop_ids = text.Encode(forcing.forced_stop_text(), false);
  return params;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelSession>> ModelSession::Load(const v1::LoadModel& command,
                                                                 const std::string& device,
                                                                 const Clock* clock) {
  const std::string& wanted = command.engine_numerics_version();
  const std::string computed = engine::NumericsVersion(device);
  if (!wanted.empty() && wanted != computed) {
    return FailedPrecondition(
        "the cell wants engine numerics '{}' and this runner computes '{}': samples of both must "
        "not mix; use a worker of the other version",
        wanted, computed);
  }
  ASSAY_ASSIGN_OR_RETURN(engine::EngineOptions options, EngineOptionsFor(command));
  options.device = device;
  options.clock = clock;
  ASSAY_ASSIGN_OR_RETURN(std::unique_ptr<ModelText> text, ModelText::Load(command.model_dir()));
  ASSAY_ASSIGN_OR_RETURN(std::unique_ptr<engine::Engine> engine,
                         engine::Engine::Load(command.model_dir(), options));
  return std::unique_ptr<ModelSession>(
      new ModelSession(std::move(text), std::move(engine), options.max_num_seqs, clock));
}

std::vector<v1::UnitFailed> ModelSession::Submit(const v1::SubmitUnits& command) {
  std::vector<v1::UnitFailed> failures;
  for (const v1::RunnerUnit& unit : command.units()) {
    const absl::Status status = SubmitOne(command, unit);
    if (status.ok()) continue;
    v1::UnitFailed& failure = failures.emplace_back();
    *failure.mutable_key() = unit.key();
    failure.set_message(Message(status));
  }
  return failures;
}

absl::Status ModelSession::SubmitOne(const v1::SubmitUnits& command, const v1::RunnerUnit& unit) {
  const Key key = KeyOf(unit.key());
  Drop(key);
  if (pending_.empty()) {  // the time without work is no part of a rate
    rate_time_ = clock_->Monotonic();
    rate_tokens_ = engine_->stats().tokens_generated;
  }
  engine::GenerationRequest request;
  ASSAY_ASSIGN_OR_RETURN(request.prompt_ids, text_->ChatPrompt(unit.user_text()));
  const v1::Sampling& sampling = command.sampling();
  request.id = next_id_++;
  request.max_new_tokens = sampling.max_tokens();
  if (request.max_new_tokens <= 0) request.max_new_tokens = engine_->max_model_len();
  request.stop_ids = engine_->config().eos_token_ids;
  request.sampling.temperature = static_cast<float>(sampling.temperature());
  request.sampling.top_p = static_cast<float>(sampling.top_p() > 0 ? sampling.top_p() : 1.0);
  request.sampling.top_k = sampling.top_k();
  request.sampling.seed = unit.seed();
  request.budget_forcing = ToEngine(command.budget_forcing(), *text_);
  request.expected_tokens = unit.expected_tokens();

  Pending& pending = pending_[request.id];
  *pending.sample.mutable_unit() = unit.key();
  pending.sample.set_epoch(unit.epoch());
  pending.sample.set_seed(unit.seed());
  pending.sample.set_prompt_sha256(HashOfIds(request.prompt_ids));
  pending.sample.set_prompt_tokens(std::ssize(request.prompt_ids));
  pending.end_of_thinking = command.budget_forcing().end_of_thinking();
  id_of_key_[key] = request.id;
  engine_->Submit(std::move(request));
  return absl::OkStatus();
}

void ModelSession::Cancel(const v1::CancelUnits& command) {
  for (const v1::UnitKey& key : command.keys()) Drop(KeyOf(key));
}

void ModelSession::Drop(const Key& key) {
  const auto it = id_of_key_.find(key);
  if (it == id_of_key_.end()) return;
  engine_->Cancel(it->second);
  pending_.erase(it->second);
  id_of_key_.erase(it);
}

absl::StatusOr<std::vector<v1::Sample>> ModelSession::Step() {
  ASSAY_ASSIGN_OR_RETURN(const std::vector<engine::GenerationResult> results, engine_->Step());
  const auto reached = throughput_log_.Observe(engine_->stats(), engine_->idle());
  if (reached.has_value()) spdlog::info("{}", *reached);
  std::vector<v1::Sample> samples;
  for (const engine::GenerationResult& result : results) {
    const auto it = pending_.find(result.id);
    if (it == pending_.end()) continue;
    Pending pending = std::move(it->second);
    pending_.erase(it);
    id_of_key_.erase(KeyOf(pending.sample.unit()));
    if (result.finish_reason == engine::FinishReason::kRejected) {
      spdlog::warn("cell {} item {} repeat {} rejected: {}", pending.sample.unit().cell_id(),
                   pending.sample.unit().item_index(), pending.sample.unit().repeat(),
                   result.error);
    }
    samples.push_back(ToSample(std::move(pending), result));
  }
  return samples;
}

v1::Sample ModelSession::ToSample(Pending pending, const engine::GenerationResult& result) const {
  v1::Sample sample = std::move(pending.sample);
  std::span<const int32_t> answer_ids = result.output_ids;
  // The id that ended the answer is counted and stored, and no part of the text, special or not.
  if (result.finish_reason == engine::FinishReason::kStop && !answer_ids.empty()) {
    answer_ids = answer_ids.first(answer_ids.size() - 1);
  }
  sample.set_text_zstd(storage::CompressText(text_->DecodeAnswer(answer_ids)));
  sample.set_token_ids_zstd(storage::CompressTokenIds(result.output_ids));
  sample.set_completion_tokens(std::ssize(result.output_ids));
  sample.set_thinking_tokens(
      text_->CountThinkingTokens(result.output_ids, pending.end_of_thinking));
  sample.set_finish_reason(ToProto(result.finish_reason));
  sample.set_queue_us(absl::ToInt64Microseconds(result.queue_time));
  sample.set_ttft_us(absl::ToInt64Microseconds(result.ttft));
  sample.set_e2e_us(absl::ToInt64Microseconds(result.e2e));
  sample.set_mean_batch_size(result.mean_batch_size);
  sample.set_num_preemptions(result.num_preemptions);
  sample.set_finished_time_us(clock_->NowMicros());
  return sample;
}

v1::EngineProgress ModelSession::Progress() {
  const engine::EngineStats stats = engine_->stats();
  v1::EngineProgress progress;
  progress.set_tokens_generated(stats.tokens_generated);
  progress.set_num_running(stats.num_running);
  progress.set_num_waiting(stats.num_waiting);
  progress.set_memory_used_bytes(stats.memory_bytes);
  const absl::Duration now = clock_->Monotonic();
  const double elapsed_s = absl::ToDoubleSeconds(now - rate_time_);
  if (rate_time_ > absl::ZeroDuration() && elapsed_s > 0) {
    progress.set_tokens_per_s(static_cast<double>(stats.tokens_generated - rate_tokens_) /
                              elapsed_s);
  }
  rate_time_ = now;
  rate_tokens_ = stats.tokens_generated;
  for (const auto& [id, num_tokens] : engine_->progress()) {
    const auto it = pending_.find(id);
    if (it == pending_.end()) continue;
    v1::UnitProgress* unit = progress.add_units();
    *unit->mutable_key() = it->second.sample.unit();
    unit->set_tokens_generated(num_tokens);
  }
  return progress;
}

}  // namespace assay::worker
