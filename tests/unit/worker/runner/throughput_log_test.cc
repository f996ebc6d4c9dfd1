#include "worker/runner/throughput_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/fake_clock.h"

namespace assay::worker {
namespace {

using ::testing::HasSubstr;

class ThroughputLogTest : public ::testing::Test {
 protected:
  // A step of a second, of which the device works for 0.9, that reads 100 GB and yields 100 tokens.
  std::optional<std::string> Step(bool idle = false) {
    clock_.Advance(absl::Seconds(1));
    stats_.tokens_generated += 100;
    stats_.bytes_read += 1e11;
    stats_.device_time += device_time_;
    stats_.total_time += absl::Seconds(1);
    return log_.Observe(stats_, idle);
  }

  testing::FakeClock clock_;
  ThroughputLog log_{&clock_};
  engine::EngineStats stats_;
  absl::Duration device_time_ = absl::Seconds(0.9);
};

TEST_F(ThroughputLogTest, ALineComesOnceAMinute) {
  int num_lines = 0;
  std::string last;
  for (int second = 1; second <= 150; ++second) {
    if (const auto line = Step()) {
      ++num_lines;
      last = *line;
    }
  }
  EXPECT_EQ(num_lines, 2);
  EXPECT_THAT(last, HasSubstr("60.0 s: 100 tokens/s, 6000.0 GB of weights and cache at 111 GB/s"));
  EXPECT_THAT(last, HasSubstr("device idle 10.0 %"));
}

TEST_F(ThroughputLogTest, AJobThatEndsIsSummedUpAndTheNextBeginsAnew) {
  for (int i = 0; i < 9; ++i) EXPECT_EQ(Step(), std::nullopt);
  EXPECT_THAT(*Step(/*idle=*/true), HasSubstr("10.0 s: 100 tokens/s, 1000.0 GB"));
  clock_.Advance(absl::Hours(1));
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Step(), std::nullopt);
  EXPECT_THAT(*Step(/*idle=*/true), HasSubstr("6.0 s: 100 tokens/s, 600.0 GB"));
}

TEST_F(ThroughputLogTest, AJobOfMomentsIsNotWorthALine) {
  EXPECT_EQ(Step(), std::nullopt);
  EXPECT_EQ(Step(/*idle=*/true), std::nullopt);
}

TEST_F(ThroughputLogTest, OnACpuTheStepsTimeIsTheDevices) {
  device_time_ = absl::ZeroDuration();
  for (int i = 0; i < 5; ++i) Step();
  const auto line = Step(/*idle=*/true);
  EXPECT_THAT(*line, HasSubstr("at 100 GB/s"));
  EXPECT_EQ(line->find("device idle"), std::string::npos);
}

}  // namespace
}  // namespace assay::worker
