#include "engine/scheduler/budget_forcing.h"

#include <gtest/gtest.h>

#include <vector>

namespace assay::engine {
namespace {

constexpr int32_t kWait = 50, kEnd = 60, kEnd2 = 61, kNewline = 70;

// Feeds sampled tokens after a prompt of two; returns the output.
struct Thinking {
  explicit Thinking(BudgetForcingParams given) : params(std::move(given)), forcing(&params) {}

  void Sample(int32_t token) {
    tokens.push_back(token);
    first_changed = forcing.Apply(2, &tokens) - 2;
  }
  std::vector<int32_t> Output() const { return {tokens.begin() + 2, tokens.end()}; }

  const BudgetForcingParams params;
  BudgetForcing forcing;
  std::vector<int32_t> tokens = {kEnd, kEnd};  // a prompt's delimiters do not count
  int64_t first_changed = 0;
};

TEST(BudgetForcingTest, ADelimiterIsReplacedAsOftenAsThereAreExtensions) {
  Thinking run({.num_extensions = 2, .extension_ids = {kWait}, .end_of_thinking_ids = {kEnd}});
  for (const int32_t token : {1, kEnd, 2, kEnd, kEnd, kEnd}) run.Sample(token);
  EXPECT_EQ(run.Output(), (std::vector<int32_t>{1, kWait, 2, kWait, kEnd, kEnd}));
}

TEST(BudgetForcingTest, ADelimiterOfTwoTokensIsTakenBackWhole) {
  Thinking run(
      {.num_extensions = 1, .extension_ids = {kWait}, .end_of_thinking_ids = {kEnd, kEnd2}});
  run.Sample(1);
  run.Sample(kEnd);
  EXPECT_EQ(run.Output(), (std::vector<int32_t>{1, kEnd}));
  run.Sample(kEnd2);
  EXPECT_EQ(run.Output(), (std::vector<int32_t>{1, kWait}));
  EXPECT_EQ(run.first_changed, 1) << "what was computed of the delimiter is void";
}

TEST(BudgetForcingTest, ThinkingIsCutAtTheBudgetAndOnce) {
  Thinking run({.max_thinking_tokens = 3,
                .end_of_thinking_ids = {kEnd},
                .forced_stop_ids = {kNewline, kEnd}});
  for (const int32_t token : {1, 2, 3}) run.Sample(token);
  EXPECT_EQ(run.Output(), (std::vector<int32_t>{1, 2, 3, kNewline, kEnd}));
  run.Sample(4);
  EXPECT_EQ(run.Output(), (std::vector<int32_t>{1, 2, 3, kNewline, kEnd, 4}));
}

TEST(BudgetForcingTest, WhoStopsThinkingInTimeIsLeftAlone) {
  Thinking run({.max_thinking_tokens = 3,
                .end_of_thinking_ids = {kEnd},
                .forced_stop_ids = {kNewline, kEnd}});
  for (const int32_t token : {1, 2, kEnd, 4, 5}) run.Sample(token);
  EXPECT_EQ(run.Output(), (std::vector<int32_t>{1, 2, kEnd, 4, 5}));
}

TEST(BudgetForcingTest, AnExtensionThatReachesTheBudgetIsCutThere) {
  Thinking run({.max_thinking_tokens = 3,
                .num_extensions = 9,
                .extension_ids = {kWait, kWait, kWait},
                .end_of_thinking_ids = {kEnd},
                .forced_stop_ids = {kEnd}});
  run.Sample(1);
  run.Sample(kEnd);
  EXPECT_EQ(run.Output(), (std::vector<int32_t>{1, kWait, kWait, kEnd}));
  run.Sample(kEnd);
  EXPECT_EQ(run.Output(), (std::vector<int32_t>{1, kWait, kWait, kEnd, kEnd}));
}

TEST(BudgetForcingTest, OffChangesNothing) {
  Thinking run({});
  for (const int32_t token : {1, kEnd, kEnd}) run.Sample(token);
  EXPECT_EQ(run.Output(), (std::vector<int32_t>{1, kEnd, kEnd}));
  EXPECT_EQ(run.first_changed, 3);
}

}  // namespace
}  // namespace assay::engine
