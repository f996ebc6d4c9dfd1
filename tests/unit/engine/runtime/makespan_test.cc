#include "engine/runtime/makespan.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/decoder/random_model.h"

namespace assay::engine {
namespace {

using assay::testing::IsError;
using assay::testing::TemporaryDirectory;

class MakespanTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& text) const {
    const std::string path = dir_ / "lengths.txt";
    std::ofstream(path) << text;
    return path;
  }
  std::unique_ptr<Engine> Load(const EngineOptions& options) const {
    testing::WriteRandomModel(testing::SmallConfig(Family::kQwen2), dir_.path(), 5);
    auto engine = Engine::Load(dir_.path(), options);
    EXPECT_OK(engine);
    return *std::move(engine);
  }

  TemporaryDirectory dir_;
};

TEST_F(MakespanTest, AnswersHaveTheLengthsOfTheFile) {
  const std::string path = Write("# prompt answer\n5 9\n\n30 2\n1 17\n8 8\n8 8\n");
  ASSERT_OK_AND_ASSIGN(const auto lengths, ReadLengths(path));
  for (const int look_ahead : {0, 1}) {
    const auto engine = Load({.max_num_seqs = 2, .look_ahead = look_ahead});
    ASSERT_OK_AND_ASSIGN(const Makespan makespan,
                         MeasureMakespan(engine.get(), lengths, {.lease_size = 2}));
    EXPECT_EQ(makespan.num_requests, 5);
    EXPECT_EQ(makespan.prompt_tokens, 52);
    EXPECT_EQ(makespan.output_tokens, 44);
    EXPECT_GE(makespan.num_steps(), 44 / 2);
    // Two begin together, and no two of the others.
    EXPECT_EQ(makespan.prompt_steps.count, 4);
    EXPECT_GT(makespan.bytes, 0);
    EXPECT_GT(makespan.wall_s, 0);
  }
}

TEST_F(MakespanTest, AStepCostsItsBytesOrItsOperationsAndTheFixedCost) {
  const std::vector<RequestLength> lengths = {{4, 6}};
  const auto engine = Load({});
  const auto predict = [&](const StepModel& model) {
    auto makespan = MeasureMakespan(engine.get(), lengths, {.model = model});
    EXPECT_OK(makespan);
    EXPECT_EQ(makespan->num_steps(), 6);
    return *makespan;
  };
  EXPECT_DOUBLE_EQ(
      predict({.bytes_per_s = 1e300, .flops_per_s = 1e300, .fixed_s = 2}).predicted_s(), 12);
  const Makespan job = predict({.bytes_per_s = 10,
                                .linear_share = 0.5,
                                .attention_share = 0.25,
                                .flops_per_s = 1e300,
                                .fixed_s = 0});
  EXPECT_NEAR(job.bound_s, job.bytes / 10, 1e-9 * job.bound_s);
  EXPECT_NEAR(job.predicted_s(), (2 * (job.bytes - job.cache_bytes) + 4 * job.cache_bytes) / 10,
              1e-9 * job.predicted_s());
  // Twice the rate, half the time.
  const double once = predict({.bytes_per_s = 1e300, .flops_per_s = 1, .fixed_s = 0}).predicted_s();
  const double twice =
      predict({.bytes_per_s = 1e300, .flops_per_s = 2, .fixed_s = 0}).predicted_s();
  EXPECT_DOUBLE_EQ(once, 2 * twice);
  EXPECT_GT(once, 0);
}

TEST_F(MakespanTest, ARequestThatCannotRunIsNamed) {
  const auto engine = Load({.max_model_len = 64});
  EXPECT_THAT(MeasureMakespan(engine.get(), std::vector<RequestLength>{{4, 6}, {64, 1}}, {}),
              IsError(absl::StatusCode::kInvalidArgument, "request 1 of 64 and 1 tokens"));
}

TEST_F(MakespanTest, AFileThatIsNotLengthsIsRefusedByLine) {
  using absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(ReadLengths(Write("5 9\n5\n")), IsError(kInvalidArgument, "lengths.txt:2: '5'"));
  EXPECT_THAT(ReadLengths(Write("5 0\n")), IsError(kInvalidArgument, ":1:"));
  EXPECT_THAT(ReadLengths(Write("5 9 x\n")), IsError(kInvalidArgument, "two positive numbers"));
  EXPECT_THAT(ReadLengths(Write("# none\n")), IsError(kInvalidArgument, "no lengths"));
  EXPECT_THAT(ReadLengths(dir_ / "absent"), IsError(absl::StatusCode::kNotFound, "absent"));
}

}  // namespace
}  // namespace assay::engine
