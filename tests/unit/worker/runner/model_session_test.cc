#include "worker/runner/model_session.h"

#include <gtest/gtest.h>

#include "tests/testing/fake_clock.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::worker {
namespace {

constexpr int kTokens = 10;

// Runs one unit of kTokens to its end, a second a step.
void RunOne(ModelSession* session, testing::FakeClock* clock) {
  v1::SubmitUnits command;
  command.mutable_sampling()->set_max_tokens(kTokens);
  command.add_units()->set_user_text("How many?");
  ASSERT_TRUE(session->Submit(command).empty());
  while (!session->idle()) {
    clock->Advance(absl::Seconds(1));
    ASSERT_OK(session->Step().status());
  }
}

TEST(ModelSessionTest, TheRateIsOfTheTimeAtWorkAlone) {
  testing::FakeClock clock;
  v1::LoadModel load;
  load.set_model_dir(testing::SourcePath("examples/models/tiny-qwen2-1m"));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<ModelSession> session,
                       ModelSession::Load(load, "cpu", &clock));
  RunOne(session.get(), &clock);
  const double first = session->Progress().tokens_per_s();
  EXPECT_GT(first, 0.5) << "also of the first unit";
  EXPECT_LE(first, 1);
  clock.Advance(absl::Hours(1));
  RunOne(session.get(), &clock);
  EXPECT_EQ(session->Progress().tokens_per_s(), first);
}

}  // namespace
}  // namespace assay::worker
