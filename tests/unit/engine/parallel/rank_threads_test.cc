#include "engine/parallel/rank_threads.h"

#include <gtest/gtest.h>

#include <future>
#include <thread>
#include <vector>

#include "tests/testing/status_matchers.h"

namespace assay::engine {
namespace {

using assay::testing::IsError;

constexpr absl::Duration kForever = absl::InfiniteDuration();

TEST(RankThreadsTest, ARankKeepsItsThreadThroughAllRounds) {
  RankThreads threads(3);
  std::vector<std::thread::id> first(3);
  ASSERT_TRUE(threads
                  .Run(
                      [&](int rank) {
                        first[static_cast<size_t>(rank)] = std::this_thread::get_id();
                        return absl::OkStatus();
                      },
                      kForever)
                  .ok());
  EXPECT_NE(first[0], first[1]);
  std::vector<int> rounds(3);
  for (int round = 0; round < 300; ++round) {
    const auto outcome = threads.Run(
        [&](int rank) {
          const auto index = static_cast<size_t>(rank);
          rounds[index] += std::this_thread::get_id() == first[index];
          return absl::OkStatus();
        },
        kForever);
    ASSERT_TRUE(outcome.ok());
  }
  EXPECT_EQ(rounds, std::vector<int>(3, 300));
}

TEST(RankThreadsTest, AFailureEndsTheWaitForThoseWhoStillWork) {
  RankThreads threads(2);
  std::promise<void> release;
  const auto outcome = threads.Run(
      [&, released = release.get_future().share()](int rank) {
        if (rank == 1) return absl::InternalError("the plug was pulled");
        released.wait();
        return absl::OkStatus();
      },
      kForever);
  EXPECT_EQ(outcome.failed_rank, 1);
  EXPECT_THAT(outcome.failure, IsError(absl::StatusCode::kInternal, "the plug was pulled"));
  EXPECT_FALSE(threads.WaitForAll(absl::ZeroDuration()));
  release.set_value();
  EXPECT_TRUE(threads.WaitForAll(kForever));
}

TEST(RankThreadsTest, WhoIsNotDoneInTimeIsNamed) {
  RankThreads threads(3);
  std::promise<void> release;
  const auto outcome = threads.Run(
      [&, released = release.get_future().share()](int rank) {
        if (rank != 1) released.wait();
        return absl::OkStatus();
      },
      absl::Milliseconds(200));
  EXPECT_EQ(outcome.failed_rank, -1);
  EXPECT_FALSE(outcome.ok());
  EXPECT_EQ(outcome.silent, (std::vector<int>{0, 2}));
  release.set_value();
  EXPECT_TRUE(threads.WaitForAll(kForever));
  EXPECT_TRUE(threads.Run([](int) { return absl::OkStatus(); }, kForever).ok());
}

}  // namespace
}  // namespace assay::engine
