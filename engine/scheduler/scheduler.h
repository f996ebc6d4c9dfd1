// Which tokens go through the model in the next step: continuous batching with chunked prefill.
//
//   waiting --admitted: lane and blocks for its tokens--> running --finished--> result
//      ^                                                    |
//      +------------- preempted: blocks run out ------------+
//                     its blocks go to host memory while that has room, else they are dropped
//
// A step takes one token of every sequence that decodes, and up to prefill_chunk tokens of those
// with more than one token to compute (prompts, preempted sequences, forced tokens). When blocks
// run out, the sequence that started last gives its blocks back. It continues later from the copies
// in host memory, or is computed anew from its tokens where that has no room. The one that started
// first is never preempted for another, and a single sequence of max_model_len always fits, so
// something always advances.
//
// Steps may be planned before the one in flight is known (look-ahead). A sequence that decodes then
// goes on with the token that is being drawn, whatever it will be. If it turns out to end the
// sequence, or budget forcing puts others in its place, what was computed behind it is dropped: its
// draw is ignored, and its slot in the cache is written again before anybody reads it, as steps
// take effect in the order of their planning.
//
// Backend-neutral: it deals in block numbers and token ids. Nothing here may change what a sequence
// yields. Not thread-safe.
#pragma once

#include <absl/time/time.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/kv/block_allocator.h"
#include "engine/kv/host_blocks.h"
#include "engine/scheduler/request.h"
#include "engine/scheduler/sequence.h"
#include "engine/scheduler/waiting_queue.h"

namespace assay::engine {

class Scheduler {
 public:
  struct Options {
    int max_num_seqs = 64;
    int64_t max_model_len = 0;
    int prefill_chunk = 256;
    int64_t vocab_size = 0;
    int64_t num_blocks = 0;  // at least those of max_model_len tokens
    int block_size = 16;
    // What a step takes longer when it has prompts, as a share of one without. With more than 0,
    // newcomers are gathered: see AdmitWaiting.
    double prompt_step_cost = 0;
  };

  // A run of a sequence's tokens to be computed in a step.
  struct Chunk {
    Sequence* sequence = nullptr;
    int64_t first_position = 0;
    int64_t num_tokens = 0;
    bool samples = false;         // reaches the end of the sequence: its last row yields a token
    int64_t output_position = 0;  // of that token
    // From 0 on: the chunk's only token is this one of those that the step in flight draws.
    int previous_draw = -1;
  };

  explicit Scheduler(const Options& options);

  // A request that can never run becomes a result of the next TakeFinished.
  void Submit(GenerationRequest request, absl::Duration now);
  // False when there is no such request.
  bool Cancel(int64_t id);

  // Blocks of host memory for preempted sequences: none at first, and never fewer than before.
  void SetHostBlocks(int64_t num_blocks) { host_blocks_.GrowTo(num_blocks); }

  // Plans a step behind those in flight, of which there may be one. Empty when nothing runs or
  // waits, or nothing can be done before the step in flight is known. A step that is not empty is
  // in flight from now on. The chunks and their sequences' block tables, which cover them, stay
  // valid until the next call of a method that is not const.
  std::span<const Chunk> PlanStep(absl::Duration now);

  // What has to be copied before the planned step, also when that is empty: first out of the cache,
  // then into it. Valid as long as the plan.
  std::span<const BlockCopy> copies_out() const { return copies_out_; }
  std::span<const BlockCopy> copies_in() const { return copies_in_; }

  // The oldest step in flight was computed; `sampled` holds a token for each chunk that samples, in
  // order.
  void CompleteStep(std::span<const int32_t> sampled, absl::Duration now);

  // What finished or was rejected since the last call.
  std::vector<GenerationResult> TakeFinished() { return std::exchange(finished_, {}); }

  bool idle() const { return running_.empty() && waiting_.empty() && finished_.empty(); }
  int num_running() const { return static_cast<int>(running_.size()); }
  int num_waiting() const { return waiting_.size(); }
  int64_t num_preemptions() const { return num_preemptions_; }
  // Of them, those that kept what was computed.
  int64_t num_swaps() const { return num_swaps_; }
  // Of sequences at their first computation; shared prompt blocks count as if computed.
  int64_t num_prompt_tokens() const { return num_prompt_tokens_; }
  int64_t num_output_tokens() const { return num_output_tokens_; }
  const BlockAllocator& blocks() const { return blocks_; }
  // {id, output tokens} of the running sequences.
  std::vector<std::pair<int64_t, int64_t>> Progress() const;
  // Of one running sequence; empty when it does not run.
  std::vector<int32_t> OutputIds(int64_t id) const;

 private:
  // Why the request can never run; empty when it can.
  std::string WhyRejected(const GenerationRequest& request) const;

  void PlanRunning(int64_t* prefill_budget);
  void AdmitWaiting(int64_t* prefill_budget, absl::Duration now);
  // Whether newcomers begin in this step. A step with prompts costs more, however many there are,
  // and a lane that waits for company costs its share of each step. So they begin when what free
  // lanes have lost equals what the step with their prompts costs more: never more than twice the
  // least that is possible, whatever the lengths. At once when nothing runs that they would hold
  // up.
  bool NewcomersBegin();
  void PlanChunk(Sequence* sequence, int64_t num_tokens, int64_t* prefill_budget);
  // Where the sequence's tokens end at the latest.
  int64_t LastEnd(const Sequence& sequence) const;
  // What the planned chunks compute counts as computed from now on.
  void BeginStep();
  // Ignores what steps in flight draw for the sequence.
  void DropDraws(Sequence* sequence);

  // Extends the block table to cover num_tokens; false (and no change) when blocks lack.
  bool ReserveBlocks(Sequence* sequence, int64_t num_tokens);
  // Gives back all that the sequence holds, here and in host memory.
  void ReleaseBlocks(Sequence* sequence);
  void PreemptLastStarted();
  // Plans copies of what is computed to host memory; false (and no change) without room.
  bool SwapOut(Sequence* sequence);
  // Plans copies from host memory to those of the sequence's blocks that were not shared.
  void SwapIn(Sequence* sequence, int64_t num_shared_blocks);
  // Another sequence is computing a prompt block that this one could share next step.
  bool PrefixIsBeingComputed(const Sequence& sequence, size_t num_matched_blocks) const;
  void PublishPromptBlocks(Sequence* sequence);

  // Appends a sampled token; true when the sequence is finished, with the reason.
  bool AppendToken(Sequence* sequence, int32_t token, FinishReason* reason);
  void Finish(const Sequence& sequence, FinishReason reason, absl::Duration now);

  const Options options_;
  BlockAllocator blocks_;
  HostBlocks host_blocks_;
  WaitingQueue waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // by start_order
  std::vector<Chunk> plan_;
  std::deque<std::vector<Chunk>> in_flight_;  // chunks without a sequence: nobody waits for them
  std::vector<BlockCopy> copies_out_;
  std::vector<BlockCopy> copies_in_;
  std::vector<Sequence*> swapped_in_;  // by the plan
  std::vector<GenerationResult> finished_;
  double lost_lane_steps_ = 0;  // by free lanes that somebody waits for, since the last admission
  int64_t next_order_ = 0;
  int64_t num_preemptions_ = 0;
  int64_t num_swaps_ = 0;
  int64_t num_prompt_tokens_ = 0;
  int64_t num_output_tokens_ = 0;
};

}  // namespace assay::engine
