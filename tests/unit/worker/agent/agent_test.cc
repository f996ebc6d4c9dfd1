// What the agent says and does when all goes well, and how it ends.
#include "base/numerics_version.h"
#include "tests/unit/worker/agent/agent_harness.h"

namespace assay::worker {
namespace {

class AgentTest : public AgentHarness {};

TEST_F(AgentTest, HelloTellsTheIncarnationTheSlotsAndTheRunnersProvenance) {
  StartAgent();
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.num_heartbeats > 0; }));
  const v1::Hello hello = coordinator_->record().hellos.front();
  EXPECT_EQ(hello.worker_id(), "w1");
  EXPECT_EQ(hello.incarnation(), agent_->incarnation());
  EXPECT_EQ(hello.protocol_revision(), 2);
  EXPECT_EQ(hello.slots_size(), 1);
  EXPECT_EQ(hello.provenance().device(), "fake");
}

// Four GPUs of the driver that stands beside the tests, in two gangs.
TEST_F(AgentTest, GangsAreSlotsOfTheirOwnSizeMemoryAndRunner) {
  Agent::Options options = Options();
  absl::StatusOr<std::unique_ptr<GpuInventory>> gpus =
      GpuInventory::Open(BinaryPath("../tests/bin/fake-driver/libnvidia-ml.so.1"));
  ASSERT_OK(gpus.status());
  options.gpus = *std::move(gpus);
  ASSERT_OK_AND_ASSIGN(options.gangs, FormGangs(options.gpus->gpus(), {3, 1}));
  StartAgent(options);
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.num_heartbeats > 0; }));
  const v1::Hello hello = coordinator_->record().hellos.front();
  EXPECT_EQ(hello.provenance().device(), "NVIDIA H100 80GB HBM3");
  EXPECT_EQ(hello.provenance().driver_versions(), "driver 580.159.04, CUDA 13.0");
  ASSERT_EQ(hello.slots_size(), 2);
  EXPECT_EQ(hello.slots(0).tensor_parallel_size(), 3);
  EXPECT_EQ(hello.slots(0).memory_bytes(), 3 * (int64_t{78} << 30));
  EXPECT_EQ(hello.slots(0).device(), "3x NVIDIA H100 80GB HBM3");
  EXPECT_EQ(hello.slots(1).tensor_parallel_size(), 1);
  const v1::Heartbeat heartbeat = coordinator_->record().last_heartbeat;
  ASSERT_EQ(heartbeat.slots_size(), 2);
  // Each GPU has as many GiB in use as its number.
  EXPECT_EQ(heartbeat.slots(0).memory_used_bytes(), int64_t{0 + 1 + 2} << 30);
  EXPECT_EQ(heartbeat.slots(1).memory_used_bytes(), int64_t{3} << 30);
}

// Before the first runner has spoken, or when none starts: cells must not go astray meanwhile.
TEST_F(AgentTest, AWorkerKnowsItsArithmeticWithoutARunner) {
  Agent::Options options = Options();
  options.slot.runner.program = "/no/such/runner";
  options.provenance_wait = absl::ZeroDuration();
  StartAgent(options);
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.num_heartbeats > 0; }));
  const v1::Provenance provenance = coordinator_->record().hellos.front().provenance();
  EXPECT_EQ(provenance.backend(), "cpu");
  EXPECT_EQ(provenance.engine_numerics_version(), kCpuNumericsVersion);
}

TEST_F(AgentTest, AGrantedUnitComesBackAsAGradedSampleUnderItsLease) {
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"ok 0", "ok 7"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.samples.size() == 2; }));
  for (const v1::Sample& sample : coordinator_->record().samples) {
    EXPECT_EQ(sample.lease_id(), "lease-1");
    EXPECT_EQ(sample.epoch(), 3);
    EXPECT_EQ(sample.grade().grader(), "boxed_number");
    EXPECT_EQ(sample.grade().verdict(), sample.unit().item_index() == 0 ? v1::Grade::VERDICT_CORRECT
                                                                        : v1::Grade::VERDICT_WRONG);
  }
  EXPECT_TRUE(coordinator_->WaitFor(HoldsNothing));
}

TEST_F(AgentTest, MoreUnitsThanLanesAllComeBack) {
  StartAgent();
  std::vector<std::string> texts;
  for (int i = 0; i < 100; ++i) texts.push_back("ok " + std::to_string(i));
  coordinator_->Send(Lease("lease-1", texts));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.samples.size() == 100; }));
  for (const v1::Sample& sample : coordinator_->record().samples) {
    EXPECT_EQ(sample.grade().verdict(), v1::Grade::VERDICT_CORRECT);
  }
}

TEST_F(AgentTest, RevokedUnitsAreDroppedAndTheOthersGoOn) {
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"hold", "hold"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return IsRunning(r, 2); }));
  v1::SyncResponse revoke;
  revoke.mutable_revoke()->set_lease_id("lease-1");
  revoke.mutable_revoke()->add_units()->set_cell_id(5);  // item 0
  coordinator_->Send(revoke);
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) {
    return IsRunning(r, 1) && r.last_heartbeat.leases_size() == 1 &&
           r.last_heartbeat.leases(0).num_units_left() == 1;
  }));
  EXPECT_TRUE(coordinator_->record().failures.empty());
}

TEST_F(AgentTest, AUnitThatIsGrantedAnewWhileItRunsIsReportedUnderTheNewGrant) {
  StartAgent();
  // The holding unit keeps the second from starting until the new grant is here.
  coordinator_->Send(Lease("lease-1", {"hold", "hold", "hold", "hold", "hold", "ok 5"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return IsRunning(r, 5); }));
  v1::SyncResponse again = Lease("lease-2", {"ok 5"}, "m", 5);
  again.mutable_grant()->mutable_units(0)->set_epoch(4);
  coordinator_->Send(again);
  v1::SyncResponse revoke;
  revoke.mutable_revoke()->set_lease_id("lease-1");
  coordinator_->Send(revoke);
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 5); }));
  const v1::Sample sample = coordinator_->record().samples.front();
  EXPECT_EQ(sample.lease_id(), "lease-2");
  EXPECT_EQ(sample.epoch(), 4);
}

TEST_F(AgentTest, TheSameGrantTwiceIsDoneOnce) {
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"hold"}));
  coordinator_->Send(Lease("lease-1", {"hold"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return IsRunning(r, 1); }));
  EXPECT_EQ(coordinator_->record().last_heartbeat.leases_size(), 1);
}

TEST_F(AgentTest, AGrantForASlotThatDoesNotExistIsGivenBack) {
  StartAgent();
  v1::SyncResponse grant = Lease("lease-1", {"ok 0"});
  grant.mutable_grant()->set_slot_index(7);
  coordinator_->Send(grant);
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.failures.size() == 1; }));
  EXPECT_TRUE(coordinator_->record().failures[0].infrastructure());
}

TEST_F(AgentTest, FailuresAreRepeatedUntilTheyAreAcknowledged) {
  coordinator_->SetAcknowledge(false);
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"refuse"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.failures.size() == 1; }));
  const int64_t now = coordinator_->record().num_heartbeats;
  ASSERT_TRUE(coordinator_->WaitFor([&](const Record& r) { return r.num_heartbeats > now + 2; }));
  EXPECT_EQ(coordinator_->record().last_heartbeat.failures_size(), 1);
  EXPECT_EQ(coordinator_->record().last_heartbeat.leases_size(), 1) << "still held";
  coordinator_->SetAcknowledge(true);
  ASSERT_TRUE(coordinator_->WaitFor(
      [](const Record& r) { return r.last_heartbeat.failures().empty() && HoldsNothing(r); }));
}

TEST_F(AgentTest, ALostStreamIsOpenedAgainByTheSameIncarnationAndNothingStops) {
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"hold"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return IsRunning(r, 1); }));
  coordinator_->Disconnect();
  ASSERT_TRUE(coordinator_->WaitFor(
      [](const Record& r) { return r.hellos.size() == 2 && r.last_heartbeat.leases_size() == 1; }));
  const Record record = coordinator_->record();
  EXPECT_EQ(record.hellos[0].incarnation(), record.hellos[1].incarnation());
}

// The end -----------------------------------------------------------------------------------------

TEST_F(AgentTest, DrainingGivesBackWhatWaitsAndWhatDoesNotEndInTime) {
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"hold", "hold", "hold", "hold", "hold", "ok 5"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return IsRunning(r, 5); }));
  agent_->Drain(absl::Milliseconds(100));
  ASSERT_TRUE(agent_->WaitFinished(kPatience));
  EXPECT_OK(agent_->end_status());
  const Record record = coordinator_->record();
  EXPECT_EQ(record.failures.size(), 6u);
  for (const v1::UnitFailure& failure : record.failures) EXPECT_TRUE(failure.infrastructure());
  EXPECT_TRUE(record.last_heartbeat.draining());
}

TEST_F(AgentTest, TheCoordinatorsDrainFinishesWhatIsLeased) {
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"ok 0", "ok 1"}));
  v1::SyncResponse drain;
  drain.mutable_drain();
  coordinator_->Send(drain);
  ASSERT_TRUE(agent_->WaitFinished(kPatience));
  EXPECT_OK(agent_->end_status());
  EXPECT_EQ(coordinator_->record().samples.size(), 2u);
}

TEST_F(AgentTest, ADrainWithoutACoordinatorEndsAndKeepsTheSamples) {
  coordinator_->SetReportHandler(
      [](const auto&, auto*) { return grpc::Status(grpc::StatusCode::UNAVAILABLE, "away"); });
  Agent::Options options = Options();
  options.flush_grace = absl::Milliseconds(100);
  StartAgent(options);
  coordinator_->Send(Lease("lease-1", {"ok 0"}));
  ASSERT_TRUE(coordinator_->WaitFor(
      [](const Record& r) { return r.last_heartbeat.num_spooled_samples() == 1; }));
  agent_->Drain(absl::ZeroDuration());
  ASSERT_TRUE(agent_->WaitFinished(kPatience));
  EXPECT_OK(agent_->end_status());
  agent_.reset();
  ASSERT_OK_AND_ASSIGN(const auto spool, Spool::Open({.directory = directory_ / "spool"}));
  EXPECT_EQ(spool->num_records(), 1);
}

TEST_F(AgentTest, AShutdownOrderEndsTheAgentAndSaysWhy) {
  StartAgent();
  v1::SyncResponse shutdown;
  shutdown.mutable_shutdown()->set_reason("another incarnation took over");
  coordinator_->Send(shutdown);
  ASSERT_TRUE(agent_->WaitFinished(kPatience));
  EXPECT_THAT(agent_->end_status(),
              IsError(absl::StatusCode::kFailedPrecondition, "another incarnation took over"));
}

TEST_F(AgentTest, TwoAgentsDoNotShareASpool) {
  StartAgent();
  EXPECT_THAT(Agent::Start(Options()).status(),
              IsError(absl::StatusCode::kFailedPrecondition, "--spool of its own"));
}

}  // namespace
}  // namespace assay::worker
