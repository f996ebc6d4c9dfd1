// From an answer to a stored sample: graders, the spool, and a coordinator that is away or refuses.
#include <sys/resource.h>

#include "tests/unit/worker/agent/agent_harness.h"

namespace assay::worker {
namespace {

class AgentReportTest : public AgentHarness {};

TEST_F(AgentReportTest, SamplesOutliveACoordinatorThatIsAway) {
  StartAgent();
  coordinator_->SetReportHandler(
      [](const auto&, auto*) { return grpc::Status(grpc::StatusCode::UNAVAILABLE, "restarting"); });
  coordinator_->Send(Lease("lease-1", {"ok 0", "ok 1"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) {
    return r.last_heartbeat.num_spooled_samples() == 2 && r.num_reports > 0;
  }));
  EXPECT_EQ(coordinator_->record().last_heartbeat.leases_size(), 1);
  const int port = coordinator_->port();
  coordinator_.reset();
  coordinator_ = std::make_unique<FakeCoordinator>(port);
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.samples.size() == 2; }));
}

TEST_F(AgentReportTest, SamplesOutliveTheAgent) {
  coordinator_->SetReportHandler(
      [](const auto&, auto*) { return grpc::Status(grpc::StatusCode::UNAVAILABLE, "restarting"); });
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"ok 0"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.num_reports > 0; }));
  agent_->Stop();
  agent_.reset();
  coordinator_->SetReportHandler(nullptr);
  StartAgent();
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.samples.size() == 1; }));
  EXPECT_EQ(coordinator_->record().samples[0].lease_id(), "lease-1");
}

TEST_F(AgentReportTest, FencedAndDuplicateSamplesAreForgotten) {
  coordinator_->SetReportHandler(
      [](const v1::ReportSamplesRequest& request, v1::ReportSamplesResponse* response) {
        for (const v1::Sample& sample : request.samples()) {
          response->add_outcomes(sample.unit().item_index() == 0
                                     ? v1::ReportSamplesResponse::OUTCOME_FENCED
                                     : v1::ReportSamplesResponse::OUTCOME_DUPLICATE);
        }
        return grpc::Status::OK;
      });
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"ok 0", "ok 1"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) {
    return r.num_reports > 0 && HoldsNothing(r) && r.last_heartbeat.num_spooled_samples() == 0;
  }));
}

TEST_F(AgentReportTest, OneSampleThatTheCoordinatorRefusesDoesNotHoldUpTheOthers) {
  coordinator_->SetReportHandler(
      [](const v1::ReportSamplesRequest& request, v1::ReportSamplesResponse* response) {
        for (const v1::Sample& sample : request.samples()) {
          if (sample.unit().item_index() == 1) {
            return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "item 1 is too odd");
          }
          response->add_outcomes(v1::ReportSamplesResponse::OUTCOME_ACCEPTED);
        }
        return grpc::Status::OK;
      });
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"ok 0", "ok 1", "ok 2"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) {
    return HasSample(r, 0) && HasSample(r, 2) && r.failures.size() == 1;
  }));
  EXPECT_NE(coordinator_->record().failures[0].message().find("item 1 is too odd"),
            std::string::npos);
  EXPECT_TRUE(coordinator_->WaitFor(HoldsNothing));
}

TEST_F(AgentReportTest, AnAnswerWithoutAnOutcomePerSampleIsNoAnswer) {
  coordinator_->SetReportHandler([](const auto&, auto*) { return grpc::Status::OK; });
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"ok 0"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.num_reports >= 2; }));
  coordinator_->SetReportHandler(nullptr);
  EXPECT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 0); }));
}

TEST_F(AgentReportTest, ASampleThatIsTooLargeForTheWireFailsItsUnit) {
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"huge", "ok 1"}));
  ASSERT_TRUE(coordinator_->WaitFor(
      [](const Record& r) { return r.failures.size() == 1 && HasSample(r, 1); }));
  EXPECT_NE(coordinator_->record().failures[0].message().find("a report holds at most"),
            std::string::npos);
}

TEST_F(AgentReportTest, AGraderThatCannotRunIsAnErrorOfTheGraderAndNotAWrongAnswer) {
  Agent::Options options = Options();
  options.graders.program = "/bin/false";
  StartAgent(options);
  coordinator_->Send(Lease("lease-1", {"ok 0"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 0); }));
  const v1::Grade grade = coordinator_->record().samples[0].grade();
  EXPECT_EQ(grade.verdict(), v1::Grade::VERDICT_GRADER_ERROR);
  EXPECT_NE(grade.detail(), "");
}

TEST_F(AgentReportTest, AGraderThatHangsIsKilledAndItsVerdictIsAnError) {
  const std::string script = directory_ / "hanging-grader";
  std::ofstream(script) << "#!/bin/sh\nexec sleep 1000\n";
  fs::permissions(script, fs::perms::owner_all);
  Agent::Options options = Options();
  options.graders.program = script;
  options.graders.timeout = absl::Milliseconds(50);
  StartAgent(options);
  coordinator_->Send(Lease("lease-1", {"ok 0"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 0); }));
  EXPECT_EQ(coordinator_->record().samples[0].grade().verdict(), v1::Grade::VERDICT_GRADER_ERROR);
}

TEST_F(AgentReportTest, AGraderThatIsKilledOnceIsReplacedAndTheVerdictIsTrue) {
  const std::string script = directory_ / "mortal-grader";
  const std::string mark = directory_ / "died";
  std::ofstream(script) << "#!/bin/sh\n"
                        << "if [ -e " << mark << " ]; then exec " << BinaryPath("assay-grader")
                        << " serve; fi\ntouch " << mark << "\nkill -9 $$\n";
  fs::permissions(script, fs::perms::owner_all);
  Agent::Options options = Options();
  options.graders.program = script;
  options.graders.timeout = absl::Seconds(20);
  StartAgent(options);
  coordinator_->Send(Lease("lease-1", {"ok 0"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 0); }));
  EXPECT_EQ(coordinator_->record().samples[0].grade().verdict(), v1::Grade::VERDICT_CORRECT);
}

// A file size limit stands for a full disk.
TEST_F(AgentReportTest, AFullDiskPausesNewWorkAndLosesNothing) {
  ::signal(SIGXFSZ, SIG_IGN);
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  coordinator_->SetReportHandler(
      [](const auto&, auto*) { return grpc::Status(grpc::StatusCode::UNAVAILABLE, "away"); });
  Agent::Options options = Options();
  options.spool.retry_interval = absl::Milliseconds(5);
  StartAgent(options);
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.num_heartbeats > 0; }));
  EXPECT_FALSE(coordinator_->record().last_heartbeat.draining());

  const struct rlimit full = {1, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &full), 0);
  coordinator_->Send(Lease("lease-1", {"ok 0", "ok 1"}));
  EXPECT_TRUE(coordinator_->WaitFor([](const Record& r) {
    return r.last_heartbeat.draining() && r.last_heartbeat.num_spooled_samples() == 2;
  }));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_TRUE(coordinator_->WaitFor([](const Record& r) { return !r.last_heartbeat.draining(); }));
  coordinator_->SetReportHandler(nullptr);
  EXPECT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.samples.size() == 2; }));
}

}  // namespace
}  // namespace assay::worker
