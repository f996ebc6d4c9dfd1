#include "engine/scheduler/scheduler.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/status.h"

namespace assay::engine {
namespace {

// Waiting sequences that are looked at when the first of them is held back for a shared prompt.
constexpr int kMaxHeldBack = 64;

}  // namespace

Scheduler::Scheduler(const Options& options)
    : options_(options), blocks_(options.num_blocks, options.block_size) {
  ASSAY_CHECK(blocks_.BlocksFor(options.max_model_len) <= options.num_blocks,
              "{} blocks do not hold one sequence of {} tokens", options.num_blocks,
              options.max_model_len);
}

void Scheduler::Submit(GenerationRequest request, absl::Duration now) {
  std::string why = WhyRejected(request);
  if (!why.empty()) {
    GenerationResult result;
    result.id = request.id;
    result.finish_reason = FinishReason::kRejected;
    result.error = std::move(why);
    finished_.push_back(std::move(result));
    return;
  }
  auto sequence = std::make_unique<Sequence>(std::move(request));
  sequence->submit_order = next_order_++;
  sequence->submit_time = now;
  waiting_.Push(std::move(sequence));
}

std::string Scheduler::WhyRejected(const GenerationRequest& request) const {
  const int64_t prompt_len = static_cast<int64_t>(request.prompt_ids.size());
  if (prompt_len == 0) return "the prompt is empty";
  if (prompt_len >= options_.max_model_len) {
    return fmt::format("the prompt has {} tokens and max_model_len is {}: no room for an answer",
                       prompt_len, options_.max_model_len);
  }
  if (request.max_new_tokens < 1) {
    return fmt::format("max_new_tokens is {}, must be at least 1", request.max_new_tokens);
  }
  const SamplingParams& sampling = request.sampling;
  if (!(sampling.temperature >= 0) || !(sampling.top_p > 0 && sampling.top_p <= 1) ||
      sampling.top_k < 0) {
    return fmt::format(
        "temperature {}, top_p {}, top_k {}: temperature and top_k must not be negative and top_p "
        "must be above 0 and at most 1",
        sampling.temperature, sampling.top_p, sampling.top_k);
  }
  const BudgetForcingParams& forcing = request.budget_forcing;
  if (forcing.enabled() && forcing.end_of_thinking_ids.empty()) {
    return "budget forcing needs the tokens of the end-of-thinking delimiter";
  }
  if (forcing.num_extensions > 0 && forcing.extension_ids.empty()) {
    return "budget forcing with extensions needs the tokens of the extension";
  }
  for (const auto* ids : {&request.prompt_ids, &forcing.extension_ids, &forcing.forced_stop_ids}) {
    for (const int32_t id : *ids) {
      if (id < 0 || id >= options_.vocab_size) {
        return fmt::format("token id {} is not in the vocabulary of {}", id, options_.vocab_size);
      }
    }
  }
  return "";
}

bool Scheduler::Cancel(int64_t id) {
  for (auto it = running_.begin(); it != running_.end(); ++it) {
    if ((*it)->request.id != id) continue;
    DropDraws(it->get());
    ReleaseBlocks(it->get());
    running_.erase(it);
    return true;
  }
  for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
    if ((*it)->request.id != id) continue;
    DropDraws(it->get());
    ReleaseBlocks(it->get());
    waiting_.Take(&it);
    return true;
  }
  const auto is_it = [&](const GenerationResult& result) { return result.id == id; };
  return std::erase_if(finished_, is_it) > 0;
}

std::span<const Scheduler::Chunk> Scheduler::PlanStep(absl::Duration now) {
  plan_.clear();
  copies_out_.clear();
  copies_in_.clear();
  swapped_in_.clear();
  const int64_t num_preemptions = num_preemptions_;
  int64_t prefill_budget = options_.prefill_chunk;
  PlanRunning(&prefill_budget);
  // Where blocks have just run out there is no room for more.
  if (num_preemptions == num_preemptions_) AdmitWaiting(&prefill_budget, now);
  // Who comes from host memory takes part one step later, so that the copies run beside this one.
  if (plan_.empty()) {
    for (Sequence* sequence : swapped_in_) {
      const int64_t num_tokens = std::min(sequence->num_uncomputed(), prefill_budget);
      if (num_tokens > 0) PlanChunk(sequence, num_tokens, &prefill_budget);
    }
  }
  if (!plan_.empty()) BeginStep();
  return plan_;
}

void Scheduler::BeginStep() {
  int num_draws = 0;
  for (const Chunk& chunk : plan_) {
    Sequence* sequence = chunk.sequence;
    sequence->num_computed += chunk.num_tokens;
    PublishPromptBlocks(sequence);
    if (!chunk.samples) continue;
    ++sequence->num_pending;
    sequence->last_draw = num_draws++;
  }
  in_flight_.push_back(plan_);
}

void Scheduler::DropDraws(Sequence* sequence) {
  sequence->num_pending = 0;
  for (std::vector<Chunk>& step : in_flight_) {
    for (Chunk& chunk : step) {
      if (chunk.sequence == sequence) chunk.sequence = nullptr;
    }
  }
}

int64_t Scheduler::LastEnd(const Sequence& sequence) const {
  return std::min(sequence.prompt_len() + sequence.request.max_new_tokens, options_.max_model_len);
}

void Scheduler::PlanRunning(int64_t* prefill_budget) {
  // Preemption takes sequences off the end, so never one that is already planned.
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence* sequence = running_[i].get();
    if (sequence->num_planned_tokens() >= LastEnd(*sequence)) continue;  // ends with the next draw
    const bool decodes = sequence->num_uncomputed() == 1;
    const int64_t num_tokens = decodes ? 1 : std::min(sequence->num_uncomputed(), *prefill_budget);
    if (num_tokens == 0) continue;
    while (!ReserveBlocks(sequence, sequence->num_computed + num_tokens)) {
      const bool is_last = i + 1 == running_.size();
      PreemptLastStarted();
      if (is_last) return;
    }
    PlanChunk(sequence, num_tokens, prefill_budget);
  }
}

bool Scheduler::NewcomersBegin() {
  const int num_free = std::min(options_.max_num_seqs - num_running(), waiting_.size());
  if (num_free == 0) return false;
  // Who comes back has its tokens behind it, and a prompt that goes on in this step has its cost.
  const bool has_prompt = std::ranges::any_of(plan_, [](const Chunk& chunk) {
    return chunk.first_position < chunk.sequence->prompt_len();
  });
  const bool comes_back = (*waiting_.begin())->start_time.has_value();
  lost_lane_steps_ += num_free;
  if (!plan_.empty() && !has_prompt && !comes_back &&
      lost_lane_steps_ < options_.prompt_step_cost * num_running()) {
    return false;
  }
  lost_lane_steps_ = 0;
  return true;
}

void Scheduler::AdmitWaiting(int64_t* prefill_budget, absl::Duration now) {
  if (!NewcomersBegin()) return;
  int num_held_back = 0;
  for (auto it = waiting_.begin(); it != waiting_.end() && num_held_back < kMaxHeldBack;) {
    if (num_running() >= options_.max_num_seqs || *prefill_budget == 0) return;
    const Sequence& candidate = **it;
    ASSAY_CHECK(candidate.num_pending == 0, "request {} waits for a draw", candidate.request.id);

    // The last prompt token is always computed: its logits give the first output token.
    const int64_t last_shareable = candidate.prompt_len() - 1;
    BlockAllocator::PrefixMatch match =
        blocks_.MatchPrefix(std::span(candidate.tokens).first(last_shareable));
    const bool is_on_host = !candidate.host_blocks.empty();
    if (!is_on_host && PrefixIsBeingComputed(candidate, match.blocks.size())) {
      ++num_held_back;
      ++it;
      continue;
    }

    for (const int32_t block : match.blocks) blocks_.AddReference(block);
    // A block each for those that run keeps a newcomer from being preempted right away.
    const int64_t num_new =
        blocks_.BlocksFor(candidate.num_tokens()) - static_cast<int64_t>(match.blocks.size());
    if (!running_.empty() && blocks_.num_available() < num_new + num_running()) {
      for (const int32_t block : match.blocks) blocks_.Release(block);
      return;
    }
    std::unique_ptr<Sequence> sequence = waiting_.Take(&it);
    const auto num_shared = static_cast<int64_t>(match.blocks.size());
    sequence->num_computed = std::max(sequence->num_computed, num_shared * options_.block_size);
    sequence->num_published_blocks = num_shared;
    sequence->prefix_serial = match.serial;
    sequence->block_table = std::move(match.blocks);
    if (!sequence->start_time) {
      sequence->start_time = now;
      sequence->start_order = next_order_++;
      num_prompt_tokens_ += sequence->prompt_len();
    }
    const int64_t num_tokens = std::min(sequence->num_uncomputed(), *prefill_budget);
    const bool reserved = ReserveBlocks(sequence.get(), sequence->num_tokens());
    ASSAY_CHECK(reserved, "request {}: {} blocks were available", sequence->request.id, num_new);
    if (is_on_host) {
      SwapIn(sequence.get(), num_shared);
    } else {
      PlanChunk(sequence.get(), num_tokens, prefill_budget);
    }
    const auto position = std::upper_bound(
        running_.begin(), running_.end(), sequence,
        [](const auto& a, const auto& b) { return a->start_order < b->start_order; });
    running_.insert(position, std::move(sequence));
  }
}

void Scheduler::PlanChunk(Sequence* sequence, int64_t num_tokens, int64_t* prefill_budget) {
  if (sequence->num_uncomputed() > 1) *prefill_budget -= num_tokens;
  plan_.push_back({.sequence = sequence,
                   .first_position = sequence->num_computed,
                   .num_tokens = num_tokens,
                   .samples = num_tokens == sequence->num_uncomputed(),
                   .output_position = sequence->output_len() + sequence->num_pending,
                   .previous_draw = sequence->num_pending > 0 ? sequence->last_draw : -1});
}

bool Scheduler::ReserveBlocks(Sequence* sequence, int64_t num_tokens) {
  const int64_t missing =
      blocks_.BlocksFor(num_tokens) - static_cast<int64_t>(sequence->block_table.size());
  if (missing > blocks_.num_available()) return false;
  for (int64_t i = 0; i < missing; ++i) sequence->block_table.push_back(*blocks_.Allocate());
  return true;
}

void Scheduler::ReleaseBlocks(Sequence* sequence) {
  // Back to front: of a shared prompt the end is given up before what it continues.
  for (auto it = sequence->block_table.rbegin(); it != sequence->block_table.rend(); ++it) {
    blocks_.Release(*it);
  }
  sequence->block_table.clear();
  sequence->num_published_blocks = 0;
  sequence->prefix_serial = BlockAllocator::kNoPrefix;
  for (const int32_t block : sequence->host_blocks) host_blocks_.Return(block);
  sequence->host_blocks.clear();
}

void Scheduler::PreemptLastStarted() {
  std::unique_ptr<Sequence> sequence = std::move(running_.back());
  running_.pop_back();
  if (!SwapOut(sequence.get())) {
    ReleaseBlocks(sequence.get());
    sequence->num_computed = 0;
  }
  ++sequence->num_preemptions;
  ++num_preemptions_;
  waiting_.Push(std::move(sequence));
}

bool Scheduler::SwapOut(Sequence* sequence) {
  const int64_t num_blocks = blocks_.BlocksFor(sequence->num_computed);
  if (num_blocks == 0 || num_blocks > host_blocks_.num_free()) return false;
  std::vector<int32_t> host_blocks;
  for (int64_t i = 0; i < num_blocks; ++i) {
    host_blocks.push_back(host_blocks_.Take());
    copies_out_.push_back({.block = sequence->block_table[i], .host_block = host_blocks.back()});
  }
  ReleaseBlocks(sequence);
  sequence->host_blocks = std::move(host_blocks);
  ++num_swaps_;
  return true;
}

void Scheduler::SwapIn(Sequence* sequence, int64_t num_shared_blocks) {
  const auto num_blocks = static_cast<int64_t>(sequence->host_blocks.size());
  for (int64_t i = num_shared_blocks; i < num_blocks; ++i) {
    copies_in_.push_back(
        {.block = sequence->block_table[i], .host_block = sequence->host_blocks[i]});
  }
  // Free for copies that are planned later, which are made later.
  for (const int32_t block : sequence->host_blocks) host_blocks_.Return(block);
  sequence->host_blocks.clear();
  swapped_in_.push_back(sequence);
}

bool Scheduler::PrefixIsBeingComputed(const Sequence& sequence, size_t num_matched_blocks) const {
  const int64_t end = static_cast<int64_t>(num_matched_blocks + 1) * options_.block_size;
  if (end > sequence.prompt_len() - 1) return false;
  for (const auto& other : running_) {
    if (other->num_computed >= other->prompt_len() || other->prompt_len() < end) continue;
    if (std::equal(sequence.tokens.begin(), sequence.tokens.begin() + end, other->tokens.begin())) {
      return true;
    }
  }
  return false;
}

void Scheduler::PublishPromptBlocks(Sequence* sequence) {
  const int64_t computed = std::min(sequence->num_computed, sequence->prompt_len());
  while ((sequence->num_published_blocks + 1) * options_.block_size <= computed) {
    const int64_t index = sequence->num_published_blocks++;
    sequence->prefix_serial = blocks_.Publish(
        sequence->block_table[index], sequence->prefix_serial,
        std::span(sequence->tokens).subspan(index * options_.block_size, options_.block_size));
  }
}

void Scheduler::CompleteStep(std::span<const int32_t> sampled, absl::Duration now) {
  const int64_t batch_size = static_cast<int64_t>(sampled.size());
  ASSAY_CHECK(!in_flight_.empty(), "no step in flight");
  const std::vector<Chunk> step = std::move(in_flight_.front());
  in_flight_.pop_front();
  size_t next_sampled = 0;
  std::vector<const Sequence*> done;
  for (const Chunk& chunk : step) {
    if (!chunk.samples) continue;
    ASSAY_CHECK(next_sampled < sampled.size(), "{} sampled tokens", sampled.size());
    const int32_t token = sampled[next_sampled++];
    Sequence* sequence = chunk.sequence;
    if (sequence == nullptr) continue;
    --sequence->num_pending;
    if (!sequence->first_token_time) sequence->first_token_time = now;
    ++sequence->num_decode_steps;
    sequence->sum_of_batch_sizes += batch_size;
    FinishReason reason;
    if (AppendToken(sequence, token, &reason)) {
      Finish(*sequence, reason, now);
      DropDraws(sequence);
      ReleaseBlocks(sequence);
      done.push_back(sequence);
    }
  }
  const auto is_done = [&](const std::unique_ptr<Sequence>& sequence) {
    return std::find(done.begin(), done.end(), sequence.get()) != done.end();
  };
  if (std::erase_if(running_, is_done) == done.size()) return;
  // Preempted while its last token was in flight.
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    if (is_done(*it)) {
      waiting_.Take(&it);
    } else {
      ++it;
    }
  }
}

bool Scheduler::AppendToken(Sequence* sequence, int32_t token, FinishReason* reason) {
  const GenerationRequest& request = sequence->request;
  sequence->tokens.push_back(token);
  ++num_output_tokens_;
  const bool is_stop =
      std::find(request.stop_ids.begin(), request.stop_ids.end(), token) != request.stop_ids.end();
  if (is_stop) {
    *reason = FinishReason::kStop;
    return true;
  }
  const int64_t before = sequence->num_tokens();
  const int64_t first_changed =
      sequence->budget_forcing.Apply(sequence->prompt_len(), &sequence->tokens);
  // What was taken back is recomputed over: keys and values beyond num_computed are overwritten.
  sequence->num_computed = std::min(sequence->num_computed, first_changed);
  if (first_changed < before || sequence->num_tokens() != before) DropDraws(sequence);
  num_output_tokens_ += sequence->num_tokens() - before;

  const int64_t end = LastEnd(*sequence);
  if (sequence->num_tokens() < end) return false;
  num_output_tokens_ -= sequence->num_tokens() - end;
  sequence->tokens.resize(end);
  const bool reached_length = sequence->output_len() == request.max_new_tokens;
  *reason = reached_length ? FinishReason::kLength : FinishReason::kContext;
  return true;
}

void Scheduler::Finish(const Sequence& sequence, FinishReason reason, absl::Duration now) {
  GenerationResult result;
  result.id = sequence.request.id;
  result.output_ids.assign(sequence.tokens.begin() + sequence.prompt_len(), sequence.tokens.end());
  result.finish_reason = reason;
  result.queue_time = *sequence.start_time - sequence.submit_time;
  result.ttft = *sequence.first_token_time - sequence.submit_time;
  result.e2e = now - sequence.submit_time;
  result.mean_batch_size = static_cast<double>(sequence.sum_of_batch_sizes) /
                           static_cast<double>(sequence.num_decode_steps);
  result.num_preemptions = sequence.num_preemptions;
  finished_.push_back(std::move(result));
}

std::vector<std::pair<int64_t, int64_t>> Scheduler::Progress() const {
  std::vector<std::pair<int64_t, int64_t>> progress;
  for (const auto& sequence : running_) {
    progress.emplace_back(sequence->request.id, sequence->output_len());
  }
  return progress;
}

std::vector<int32_t> Scheduler::OutputIds(int64_t id) const {
  for (const auto& sequence : running_) {
    if (sequence->request.id != id) continue;
    return {sequence->tokens.begin() + sequence->prompt_len(), sequence->tokens.end()};
  }
  return {};
}

}  // namespace assay::engine
