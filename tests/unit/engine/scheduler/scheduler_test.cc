#include "engine/scheduler/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <set>
#include <vector>

namespace assay::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kBlockSize = 16;

// Plays the model: a sequence's next token is 1000 + its length, and every token that a chunk is
// about to read must have been computed into the block that the table names.
class SchedulerTest : public ::testing::Test {
 protected:
  void Make(Scheduler::Options options) {
    options.vocab_size = 100000;
    options.block_size = kBlockSize;
    scheduler_ = std::make_unique<Scheduler>(options);
    in_flight_.clear();
  }

  static GenerationRequest Request(int64_t id, int prompt_len, int max_new_tokens,
                                   int first_token = -1) {
    GenerationRequest request;
    request.id = id;
    for (int i = 0; i < prompt_len; ++i) {
      request.prompt_ids.push_back(
          (first_token < 0 ? 200 * (static_cast<int>(id) + 1) : first_token) + i);
    }
    request.max_new_tokens = max_new_tokens;
    return request;
  }

  void Submit(GenerationRequest request) { scheduler_->Submit(std::move(request), now_); }

  // Plans a step, and completes the oldest in flight when there are more than look_ahead_. Returns
  // the ids of the planned sequences.
  std::vector<int64_t> Step() {
    const auto plan = scheduler_->PlanStep(now_);
    CopyBlocks();
    std::vector<int64_t> ids;
    std::vector<int32_t> sampled;
    for (const Scheduler::Chunk& chunk : plan) {
      const Sequence& sequence = *chunk.sequence;
      const auto token = [&](int64_t t) {
        return chunk.previous_draw >= 0 && t == chunk.first_position
                   ? in_flight_.back()[chunk.previous_draw]
                   : sequence.tokens.at(t);
      };
      if (chunk.previous_draw >= 0) {
        EXPECT_EQ(chunk.num_tokens, 1);
        EXPECT_EQ(chunk.first_position, sequence.num_tokens());
      }
      ids.push_back(sequence.request.id);
      EXPECT_GE(static_cast<int64_t>(sequence.block_table.size()) * kBlockSize,
                chunk.first_position + chunk.num_tokens);
      for (int64_t t = 0; t < chunk.first_position + chunk.num_tokens; ++t) {
        const std::pair<int32_t, int64_t> slot = {sequence.block_table[t / kBlockSize],
                                                  t % kBlockSize};
        if (t >= chunk.first_position) cache_[slot] = token(t);
        EXPECT_EQ(cache_[slot], token(t)) << "sequence " << ids.back() << " token " << t;
      }
      num_computed_ += chunk.num_tokens;
      const auto end = static_cast<int32_t>(chunk.first_position + chunk.num_tokens);
      EXPECT_EQ(chunk.samples, end == sequence.num_tokens() + (chunk.previous_draw >= 0));
      if (!chunk.samples) continue;
      EXPECT_EQ(chunk.output_position, end - sequence.prompt_len());
      sampled.push_back(1000 + end);
    }
    now_ += absl::Seconds(1);
    if (!plan.empty()) in_flight_.push_back(sampled);
    if (std::ssize(in_flight_) > (plan.empty() ? 0 : look_ahead_)) {
      scheduler_->CompleteStep(in_flight_.front(), now_);
      in_flight_.pop_front();
    }
    for (GenerationResult& result : scheduler_->TakeFinished()) {
      results_[result.id] = std::move(result);
    }
    return ids;
  }

  void CopyBlocks() {
    for (const BlockCopy& copy : scheduler_->copies_out()) {
      highest_host_block_ = std::max(highest_host_block_, copy.host_block);
      for (int slot = 0; slot < kBlockSize; ++slot) {
        host_[{copy.host_block, slot}] = cache_[{copy.block, slot}];
      }
    }
    for (const BlockCopy& copy : scheduler_->copies_in()) {
      for (int slot = 0; slot < kBlockSize; ++slot) {
        cache_[{copy.block, slot}] = host_.at({copy.host_block, slot});
      }
    }
  }

  void ExpectWholeAnswers(int num_requests, int prompt_len, size_t output_len) {
    for (int id = 0; id < num_requests; ++id) {
      ASSERT_EQ(results_[id].output_ids.size(), output_len);
      for (size_t i = 0; i < output_len; ++i) {
        EXPECT_EQ(results_[id].output_ids[i], 1000 + prompt_len + static_cast<int>(i));
      }
    }
    EXPECT_EQ(scheduler_->blocks().num_used(), 0);
  }

  void RunToEnd() {
    for (int steps = 0; !scheduler_->idle(); ++steps) {
      ASSERT_LT(steps, 100000) << "nothing advances";
      const bool waits = !in_flight_.empty();
      ASSERT_FALSE(Step().empty() && !waits && !scheduler_->idle());
    }
  }

  std::unique_ptr<Scheduler> scheduler_;
  std::map<std::pair<int32_t, int64_t>, int32_t> cache_;
  std::map<std::pair<int32_t, int64_t>, int32_t> host_;
  int32_t highest_host_block_ = -1;
  int look_ahead_ = 0;
  std::deque<std::vector<int32_t>> in_flight_;  // what the steps draw
  std::map<int64_t, GenerationResult> results_;
  absl::Duration now_ = absl::Seconds(100);
  int64_t num_computed_ = 0;
};

TEST_F(SchedulerTest, LongestExpectedGoesFirstAndEqualsInOrderOfSubmission) {
  Make({.max_num_seqs = 1, .max_model_len = 64, .num_blocks = 8});
  for (const auto& [id, expected] : {std::pair{0, 5}, {1, 9}, {2, 5}, {3, 0}}) {
    GenerationRequest request = Request(id, 4, 1);
    request.expected_tokens = expected;
    Submit(request);
  }
  std::vector<int64_t> order;
  while (!scheduler_->idle()) order.push_back(Step().at(0));
  EXPECT_THAT(order, ElementsAre(1, 0, 2, 3));
}

TEST_F(SchedulerTest, PromptsAreCutIntoChunksWhileOthersDecode) {
  Make({.max_num_seqs = 4, .max_model_len = 200, .prefill_chunk = 32, .num_blocks = 40});
  Submit(Request(0, 10, 50));
  EXPECT_THAT(Step(), ElementsAre(0));
  Submit(Request(1, 80, 2));
  for (int i = 0; i < 3; ++i) EXPECT_THAT(Step(), ElementsAre(0, 1));
  EXPECT_THAT(scheduler_->Progress(),
              ElementsAre(std::pair<int64_t, int64_t>(0, 4), std::pair<int64_t, int64_t>(1, 1)));
  RunToEnd();
  EXPECT_EQ(results_[1].output_ids, (std::vector<int32_t>{1080, 1081}));
}

// 64 lanes of answers of 40 to 103 tokens: about one becomes free with each step.
TEST_F(SchedulerTest, NewcomersAreGatheredWhereAStepWithPromptsCostsMore) {
  const auto count_prompt_steps = [&](double cost, int64_t* num_steps) {
    Make({.max_num_seqs = 64,
          .max_model_len = 200,
          .prefill_chunk = 256,
          .num_blocks = 800,
          .prompt_step_cost = cost});
    for (int id = 0; id < 500; ++id) Submit(Request(id, 4, 40 + id * 37 % 64));
    int num_prompt_steps = 0;
    for (*num_steps = 0; !scheduler_->idle(); ++*num_steps) {
      const int64_t before = scheduler_->num_prompt_tokens();
      Step();
      num_prompt_steps += scheduler_->num_prompt_tokens() > before;
    }
    return num_prompt_steps;
  };
  int64_t steps_at_once = 0, steps_gathered = 0;
  const int at_once = count_prompt_steps(0, &steps_at_once);
  const int gathered = count_prompt_steps(0.5, &steps_gathered);
  EXPECT_LT(3 * gathered, at_once);
  const auto cost = [](int64_t num_steps, int num_prompt_steps) {
    return static_cast<double>(num_steps) + 0.5 * num_prompt_steps;
  };
  EXPECT_LT(cost(steps_gathered, gathered), cost(steps_at_once, at_once));
}

TEST_F(SchedulerTest, WhoeverIsAloneBeginsAtOnce) {
  Make({.max_num_seqs = 64, .max_model_len = 100, .num_blocks = 64, .prompt_step_cost = 0.5});
  Submit(Request(0, 4, 20));
  EXPECT_THAT(Step(), ElementsAre(0));
  Submit(Request(1, 4, 20));
  EXPECT_THAT(Step(), ElementsAre(0, 1)) << "one lane lost a step, which is more than half of one";
}

TEST_F(SchedulerTest, TimesRunFromSubmission) {
  Make({.max_num_seqs = 1, .max_model_len = 64, .num_blocks = 8});
  Submit(Request(0, 4, 3));
  Submit(Request(1, 4, 2));
  RunToEnd();
  EXPECT_EQ(results_[1].queue_time, absl::Seconds(3));
  EXPECT_EQ(results_[1].ttft, absl::Seconds(4));
  EXPECT_EQ(results_[1].e2e, absl::Seconds(5));
  EXPECT_EQ(results_[1].mean_batch_size, 1);
}

TEST_F(SchedulerTest, WhoStartedLastIsPreemptedAndYieldsTheSameTokens) {
  Make({.max_num_seqs = 8, .max_model_len = 100, .num_blocks = 14});
  for (int id = 0; id < 8; ++id) Submit(Request(id, 20, 70));
  RunToEnd();
  EXPECT_GT(scheduler_->num_preemptions(), 0);
  EXPECT_EQ(results_[0].num_preemptions, 0);
  ExpectWholeAnswers(8, 20, 70);
}

TEST_F(SchedulerTest, WhoGoesToHostMemoryComputesNothingTwice) {
  Make({.max_num_seqs = 8, .max_model_len = 100, .num_blocks = 14});
  scheduler_->SetHostBlocks(60);
  for (int id = 0; id < 8; ++id) Submit(Request(id, 20, 70));
  RunToEnd();
  EXPECT_GT(scheduler_->num_preemptions(), 0);
  EXPECT_EQ(scheduler_->num_swaps(), scheduler_->num_preemptions());
  EXPECT_EQ(num_computed_, 8 * (20 + 69));
  ExpectWholeAnswers(8, 20, 70);
}

TEST_F(SchedulerTest, HostMemoryIsBoundedAndWhatDoesNotFitIsComputedAgain) {
  Make({.max_num_seqs = 8, .max_model_len = 100, .num_blocks = 14});
  scheduler_->SetHostBlocks(7);
  for (int id = 0; id < 8; ++id) Submit(Request(id, 20, 70));
  RunToEnd();
  EXPECT_GT(scheduler_->num_swaps(), 0);
  EXPECT_LT(scheduler_->num_swaps(), scheduler_->num_preemptions());
  EXPECT_LT(highest_host_block_, 7);
  ExpectWholeAnswers(8, 20, 70);
}

TEST_F(SchedulerTest, ASharedPromptIsNotCopiedBackWhileItIsInTheCache) {
  Make({.max_num_seqs = 6, .max_model_len = 100, .num_blocks = 10});
  scheduler_->SetHostBlocks(60);
  for (int id = 0; id < 6; ++id) Submit(Request(id, 40, 50, /*first_token=*/7));
  size_t num_out = 0, num_in = 0;
  while (!scheduler_->idle()) {
    Step();
    num_out += scheduler_->copies_out().size();
    num_in += scheduler_->copies_in().size();
  }
  EXPECT_GT(num_in, 0u);
  EXPECT_LT(num_in, num_out);
  ExpectWholeAnswers(6, 40, 50);
}

TEST_F(SchedulerTest, WhoIsCancelledInHostMemoryLeavesItsRoom) {
  Make({.max_num_seqs = 2, .max_model_len = 96, .num_blocks = 6});
  scheduler_->SetHostBlocks(4);
  for (int round = 0; round < 3; ++round) {
    Submit(Request(0, 20, 70));
    Submit(Request(1, 20, 70));
    const int64_t swaps = scheduler_->num_swaps();
    while (scheduler_->num_swaps() == swaps) ASSERT_FALSE(Step().empty());
    EXPECT_TRUE(scheduler_->Cancel(1));
    EXPECT_TRUE(scheduler_->Cancel(0));
  }
  EXPECT_TRUE(scheduler_->idle());
}

TEST_F(SchedulerTest, ACacheOfOneSequenceServesManyOneByOne) {
  Make({.max_num_seqs = 8, .max_model_len = 96, .prefill_chunk = 8, .num_blocks = 6});
  for (int id = 0; id < 20; ++id) Submit(Request(id, 40, 56));
  RunToEnd();
  EXPECT_EQ(results_.size(), 20u);
  for (const auto& [id, result] : results_) EXPECT_EQ(result.output_ids.size(), 56u);
}

TEST_F(SchedulerTest, RepeatsOfAPromptComputeItsFullBlocksOnce) {
  Make({.max_num_seqs = 8, .max_model_len = 100, .num_blocks = 64});
  for (int id = 0; id < 4; ++id) Submit(Request(id, 50, 2, /*first_token=*/7));
  EXPECT_THAT(Step(), ElementsAre(0)) << "the others wait for what is being computed";
  EXPECT_THAT(Step(), ElementsAre(0, 1, 2, 3));
  RunToEnd();
  // 50 once, and 2 behind the three shared blocks; then a decode step each.
  EXPECT_EQ(num_computed_, 50 + 3 * 2 + 4);
}

TEST_F(SchedulerTest, APromptOfWholeBlocksStillComputesItsLastToken) {
  Make({.max_num_seqs = 1, .max_model_len = 100, .num_blocks = 64});
  Submit(Request(0, 48, 1, 7));
  Submit(Request(1, 48, 1, 7));
  RunToEnd();
  EXPECT_EQ(num_computed_, 48 + 16);
}

TEST_F(SchedulerTest, SharingSurvivesPreemption) {
  Make({.max_num_seqs = 6, .max_model_len = 100, .num_blocks = 10});
  for (int id = 0; id < 12; ++id) Submit(Request(id, 40, 50, 7 * (id % 2)));
  RunToEnd();
  EXPECT_GT(scheduler_->num_preemptions(), 0);
  for (int id = 0; id < 12; ++id) EXPECT_EQ(results_[id].output_ids.size(), 50u);
}

TEST_F(SchedulerTest, AStopTokenEndsASequenceAndIsKept) {
  Make({.max_num_seqs = 1, .max_model_len = 100, .num_blocks = 10});
  GenerationRequest request = Request(0, 4, 50);
  request.stop_ids = {9999, 1006};
  Submit(request);
  RunToEnd();
  EXPECT_EQ(results_[0].output_ids, (std::vector<int32_t>{1004, 1005, 1006}));
  EXPECT_EQ(results_[0].finish_reason, FinishReason::kStop);
}

TEST_F(SchedulerTest, TheContextLimitEndsASequence) {
  Make({.max_num_seqs = 1, .max_model_len = 32, .num_blocks = 10});
  Submit(Request(0, 30, 50));
  Submit(Request(1, 30, 2));
  RunToEnd();
  EXPECT_EQ(results_[0].output_ids.size(), 2u);
  EXPECT_EQ(results_[0].finish_reason, FinishReason::kContext);
  EXPECT_EQ(results_[1].finish_reason, FinishReason::kLength);
}

TEST_F(SchedulerTest, ForcedTokensGoThroughTheModelAndAreCounted) {
  Make({.max_num_seqs = 2, .max_model_len = 100, .num_blocks = 10});
  GenerationRequest request = Request(0, 4, 12);
  request.budget_forcing = {.max_thinking_tokens = 6,
                            .num_extensions = 1,
                            .extension_ids = {50, 51, 52},
                            .end_of_thinking_ids = {1005, 1006},
                            .forced_stop_ids = {60, 61}};
  Submit(request);
  RunToEnd();
  // 1005 1006 are taken back after two steps; the budget cuts behind 1009.
  EXPECT_EQ(results_[0].output_ids,
            (std::vector<int32_t>{1004, 50, 51, 52, 1008, 1009, 60, 61, 1012, 1013, 1014, 1015}));
  EXPECT_EQ(scheduler_->num_output_tokens(), 12);
}

TEST_F(SchedulerTest, ForcedTokensDoNotPassTheLengthLimit) {
  Make({.max_num_seqs = 2, .max_model_len = 100, .num_blocks = 10});
  GenerationRequest request = Request(0, 4, 4);
  request.budget_forcing = {
      .max_thinking_tokens = 3, .end_of_thinking_ids = {99}, .forced_stop_ids = {60, 61}};
  Submit(request);
  RunToEnd();
  EXPECT_EQ(results_[0].output_ids, (std::vector<int32_t>{1004, 1005, 1006, 60}));
  EXPECT_EQ(results_[0].finish_reason, FinishReason::kLength);
}

// The same answers when each step is planned before the one before it is known.
class LookAheadTest : public SchedulerTest {
 protected:
  LookAheadTest() { look_ahead_ = 1; }
};

TEST_F(LookAheadTest, ALengthIsReachedWithoutAStepTooMany) {
  Make({.max_num_seqs = 2, .max_model_len = 100, .num_blocks = 10});
  Submit(Request(0, 4, 7));
  RunToEnd();
  EXPECT_EQ(num_computed_, 4 + 6);
  ExpectWholeAnswers(1, 4, 7);
}

TEST_F(LookAheadTest, WhatIsDrawnBehindAStopIsDropped) {
  Make({.max_num_seqs = 2, .max_model_len = 100, .num_blocks = 10});
  GenerationRequest request = Request(0, 4, 50);
  request.stop_ids = {1006};
  Submit(request);
  Submit(Request(1, 4, 20));
  RunToEnd();
  EXPECT_EQ(results_[0].output_ids, (std::vector<int32_t>{1004, 1005, 1006}));
  EXPECT_EQ(results_[0].finish_reason, FinishReason::kStop);
  EXPECT_EQ(results_[1].output_ids.size(), 20u);
  EXPECT_EQ(scheduler_->num_output_tokens(), 23);
  EXPECT_EQ(num_computed_, (4 + 3) + (4 + 19)) << "one token behind the stop";
  EXPECT_EQ(scheduler_->blocks().num_used(), 0);
}

TEST_F(LookAheadTest, TheBlocksOfWhoStoppedServeOthersAtOnce) {
  Make({.max_num_seqs = 4, .max_model_len = 96, .num_blocks = 6});
  for (int id = 0; id < 20; ++id) {
    GenerationRequest request = Request(id, 1 + id % 40, 50);
    request.stop_ids = {1030 + id % 20};
    Submit(request);
  }
  RunToEnd();
  for (int id = 0; id < 20; ++id) {
    ASSERT_FALSE(results_[id].output_ids.empty());
    for (size_t i = 0; i < results_[id].output_ids.size(); ++i) {
      EXPECT_EQ(results_[id].output_ids[i], 1001 + id % 40 + static_cast<int>(i));
    }
  }
  EXPECT_EQ(scheduler_->blocks().num_used(), 0);
}

TEST_F(LookAheadTest, ForcedTokensReplaceWhatWasDrawnAhead) {
  Make({.max_num_seqs = 2, .max_model_len = 100, .num_blocks = 10});
  GenerationRequest request = Request(0, 4, 12);
  request.budget_forcing = {.max_thinking_tokens = 6,
                            .num_extensions = 1,
                            .extension_ids = {50, 51, 52},
                            .end_of_thinking_ids = {1005, 1006},
                            .forced_stop_ids = {60, 61}};
  Submit(request);
  RunToEnd();
  EXPECT_EQ(results_[0].output_ids,
            (std::vector<int32_t>{1004, 50, 51, 52, 1008, 1009, 60, 61, 1012, 1013, 1014, 1015}));
  EXPECT_EQ(scheduler_->num_output_tokens(), 12);
}

TEST_F(LookAheadTest, RepeatsOfAPromptComputeItsFullBlocksOnce) {
  Make({.max_num_seqs = 8, .max_model_len = 100, .num_blocks = 64});
  for (int id = 0; id < 4; ++id) Submit(Request(id, 50, 2, /*first_token=*/7));
  EXPECT_THAT(Step(), ElementsAre(0));
  EXPECT_THAT(Step(), ElementsAre(0, 1, 2, 3));
  RunToEnd();
  EXPECT_EQ(num_computed_, 50 + 3 * 2 + 4);
}

TEST_F(LookAheadTest, WhoIsPreemptedWithADrawInFlightKeepsIt) {
  for (const int num_host_blocks : {0, 7, 60}) {
    Make({.max_num_seqs = 8, .max_model_len = 100, .num_blocks = 14});
    scheduler_->SetHostBlocks(num_host_blocks);
    num_computed_ = 0;
    for (int id = 0; id < 8; ++id) {
      GenerationRequest request = Request(id, 20, 70);
      if (id % 2 == 1) request.stop_ids = {1080 + id};
      Submit(request);
    }
    RunToEnd();
    EXPECT_GT(scheduler_->num_preemptions(), 0);
    for (int id = 0; id < 8; ++id) {
      ASSERT_EQ(results_[id].output_ids.size(), id % 2 == 1 ? 61u + id : 70u);
      for (size_t i = 0; i < results_[id].output_ids.size(); ++i) {
        EXPECT_EQ(results_[id].output_ids[i], 1020 + static_cast<int>(i));
      }
    }
    EXPECT_EQ(scheduler_->blocks().num_used(), 0);
  }
}

TEST_F(LookAheadTest, WhoEndsWhilePreemptedIsDone) {
  Make({.max_num_seqs = 2, .max_model_len = 64, .num_blocks = 4});
  // The first needs a third block when the second's last token is in flight.
  Submit(Request(0, 17, 40));
  Submit(Request(1, 3, 16));
  RunToEnd();
  EXPECT_EQ(scheduler_->num_preemptions(), 1);
  EXPECT_EQ(results_[0].output_ids.size(), 40u);
  EXPECT_EQ(results_[1].output_ids.size(), 16u);
  EXPECT_EQ(scheduler_->blocks().num_used(), 0);
}

TEST_F(LookAheadTest, CancelDropsWhatIsInFlight) {
  Make({.max_num_seqs = 4, .max_model_len = 64, .num_blocks = 8});
  Submit(Request(0, 4, 50));
  Submit(Request(1, 4, 20));
  for (int i = 0; i < 5; ++i) Step();
  EXPECT_TRUE(scheduler_->Cancel(0));
  Submit(Request(2, 30, 20));
  RunToEnd();
  EXPECT_EQ(results_.count(0), 0u);
  EXPECT_EQ(results_[1].output_ids.size(), 20u);
  EXPECT_EQ(results_[2].output_ids.front(), 1030);
  EXPECT_EQ(results_[2].output_ids.back(), 1049);
  EXPECT_EQ(scheduler_->blocks().num_used(), 0);
}

TEST_F(SchedulerTest, CancelDropsARequestWhereverItIs) {
  Make({.max_num_seqs = 1, .max_model_len = 64, .num_blocks = 8});
  Submit(Request(0, 4, 50));
  Submit(Request(1, 4, 50));
  Submit(Request(2, 0, 50));
  Step();
  EXPECT_TRUE(scheduler_->Cancel(0));
  EXPECT_TRUE(scheduler_->Cancel(1));
  EXPECT_FALSE(scheduler_->Cancel(0));
  EXPECT_TRUE(scheduler_->idle());
  EXPECT_EQ(scheduler_->blocks().num_used(), 0);
}

TEST_F(SchedulerTest, WhatCanNeverRunIsRejectedWithTheReason) {
  Make({.max_num_seqs = 1, .max_model_len = 64, .num_blocks = 8});
  const auto why = [&](GenerationRequest request) {
    Submit(std::move(request));
    const auto results = scheduler_->TakeFinished();
    EXPECT_EQ(results.size(), 1u);
    EXPECT_EQ(results.at(0).finish_reason, FinishReason::kRejected);
    return results.at(0).error;
  };
  EXPECT_THAT(why(Request(0, 0, 1)), HasSubstr("prompt is empty"));
  EXPECT_THAT(why(Request(0, 64, 1)), HasSubstr("max_model_len is 64"));
  EXPECT_THAT(why(Request(0, 4, 0)), HasSubstr("max_new_tokens is 0"));
  EXPECT_THAT(why(Request(0, 4, 1, 99998)), HasSubstr("100000 is not in the vocabulary"));

  GenerationRequest request = Request(0, 4, 1);
  request.sampling.top_p = 1.5f;
  EXPECT_THAT(why(request), HasSubstr("top_p 1.5"));
  request = Request(0, 4, 1);
  request.budget_forcing.max_thinking_tokens = 10;
  EXPECT_THAT(why(request), HasSubstr("end-of-thinking"));
  request.budget_forcing.end_of_thinking_ids = {1};
  request.budget_forcing.num_extensions = 1;
  EXPECT_THAT(why(request), HasSubstr("tokens of the extension"));
  request.budget_forcing.extension_ids = {-1};
  EXPECT_THAT(why(request), HasSubstr("token id -1"));
}

}  // namespace
}  // namespace assay::engine
