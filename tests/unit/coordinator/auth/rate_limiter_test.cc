#include "coordinator/auth/rate_limiter.h"

#include <gtest/gtest.h>

#include "tests/testing/fake_clock.h"

namespace assay::coordinator {
namespace {

using assay::testing::FakeClock;

int NumAdmitted(RateLimiter* limiter, const std::string& key, int tries) {
  int admitted = 0;
  for (int i = 0; i < tries; ++i) admitted += limiter->Admit(key) ? 1 : 0;
  return admitted;
}

TEST(RateLimiterTest, ABurstIsTwoSecondsOfCallsAndThenTheRateHolds) {
  FakeClock clock;
  RateLimiter limiter(10, &clock);
  EXPECT_EQ(NumAdmitted(&limiter, "w1", 100), 20);
  clock.Advance(absl::Seconds(1));
  EXPECT_EQ(NumAdmitted(&limiter, "w1", 100), 10);
  clock.Advance(absl::Hours(1));
  EXPECT_EQ(NumAdmitted(&limiter, "w1", 100), 20);
}

TEST(RateLimiterTest, OneCallerDoesNotSpendWhatIsAnothers) {
  FakeClock clock;
  RateLimiter limiter(1, &clock);
  EXPECT_EQ(NumAdmitted(&limiter, "w1", 10), 2);
  EXPECT_EQ(NumAdmitted(&limiter, "w2", 10), 2);
}

TEST(RateLimiterTest, ZeroIsNoLimit) {
  FakeClock clock;
  RateLimiter limiter(0, &clock);
  EXPECT_EQ(NumAdmitted(&limiter, "w1", 100'000), 100'000);
}

TEST(RateLimiterTest, ManyCallersDoNotGiveAnExhaustedOneANewBucketWithinItsSecond) {
  FakeClock clock;
  RateLimiter limiter(1, &clock);
  for (int i = 0; i < 16'000; ++i) limiter.Admit("old-" + std::to_string(i));
  clock.Advance(absl::Seconds(2));
  EXPECT_EQ(NumAdmitted(&limiter, "w1", 10), 2);
  for (int i = 0; i < 1'000; ++i) limiter.Admit("new-" + std::to_string(i));
  EXPECT_EQ(NumAdmitted(&limiter, "w1", 10), 0);
}

}  // namespace
}  // namespace assay::coordinator
