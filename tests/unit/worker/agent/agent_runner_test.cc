// Runners that die, hang, speak garbage or cannot load a model.
#include "base/file.h"
#include "base/hash.h"
#include "tests/unit/worker/agent/agent_harness.h"

namespace assay::worker {
namespace {

class AgentRunnerTest : public AgentHarness {};

TEST_F(AgentRunnerTest, ADeadRunnerFailsWhatItRanAndTheRestIsDoneByTheNext) {
  StartAgent();
  // Four lanes and one ahead: "die" takes four others down, the sixth unit only waits.
  coordinator_->Send(Lease("lease-1", {"hold", "hold", "hold", "hold", "die", "ok 5"}));
  ASSERT_TRUE(coordinator_->WaitFor(
      [](const Record& r) { return r.failures.size() == 5 && HasSample(r, 5); }));
  const v1::UnitFailure failure = *FindFailure(coordinator_->record(), 4);
  EXPECT_FALSE(failure.infrastructure());
  EXPECT_EQ(failure.lease_id(), "lease-1");
  EXPECT_EQ(failure.epoch(), 3);
  EXPECT_NE(failure.message().find("signal 9"), std::string::npos) << failure.message();
  EXPECT_TRUE(coordinator_->WaitFor(HoldsNothing));
}

// A CUDA fault ends the runner's process alone; its units say why and go back.
TEST_F(AgentRunnerTest, ADeviceFaultIsTheReasonOfItsUnitsAndTheSlotGoesOn) {
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"fault"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.failures.size() == 1; }));
  EXPECT_NE(coordinator_->record().failures[0].message().find("an illegal memory access"),
            std::string::npos)
      << coordinator_->record().failures[0].message();
  coordinator_->Send(Lease("lease-2", {"ok 1"}, "m", 1));
  EXPECT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 1); }));
}

// A large model takes minutes to load and generates nothing meanwhile.
TEST_F(AgentRunnerTest, ARunnerThatLoadsForLongIsNotStuck) {
  MakeModel("large", "loads_for_long");
  Agent::Options options = Options();
  options.slot.stuck_timeout = absl::Milliseconds(300);
  StartAgent(options);
  coordinator_->Send(Lease("lease-1", {"ok 0"}, "large"));
  const auto loading = [](const Record& r) {
    return r.last_heartbeat.slots_size() == 1 &&
           r.last_heartbeat.slots(0).phase() == v1::SlotState::PHASE_LOADING;
  };
  ASSERT_TRUE(coordinator_->WaitFor(loading));
  const int64_t before = coordinator_->record().num_heartbeats;
  EXPECT_TRUE(coordinator_->WaitFor(
      [&](const Record& r) { return r.num_heartbeats > before + 20 && loading(r); }));
  fs::remove(fs::path(directory_.path()) / "models/large/loads_for_long");
  EXPECT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 0); }));
  EXPECT_TRUE(coordinator_->record().failures.empty());
}

TEST_F(AgentRunnerTest, ARunnerThatSpeaksGarbageIsReplaced) {
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"garbage"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.failures.size() == 1; }));
  EXPECT_NE(coordinator_->record().failures[0].message().find("a frame claims"), std::string::npos);
  coordinator_->Send(Lease("lease-2", {"ok 1"}, "m", 1));
  EXPECT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 1); }));
}

TEST_F(AgentRunnerTest, ARunnerWithoutProgressIsKilledAndItsUnitsFail) {
  Agent::Options options = Options();
  options.slot.stuck_timeout = absl::Milliseconds(200);
  StartAgent(options);
  coordinator_->Send(Lease("lease-1", {"hold"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.failures.size() == 1; }));
  EXPECT_NE(coordinator_->record().failures[0].message().find("generated no token"),
            std::string::npos);
  coordinator_->Send(Lease("lease-2", {"ok 1"}, "m", 1));
  EXPECT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 1); }));
}

// A lease lapses before its runner counts as stuck; if taking its units away started the clock
// anew, the same runner would get them again and again.
TEST_F(AgentRunnerTest, AStuckRunnerIsKilledThoughItsUnitsAreTakenAway) {
  Agent::Options options = Options();
  options.slot.stuck_timeout = absl::Milliseconds(200);
  const std::string pids = directory_ / "pids";
  ::setenv("FAKE_RUNNER_PIDS", pids.c_str(), 1);
  StartAgent(options);
  coordinator_->Send(Lease("lease-1", {"freeze"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return IsRunning(r, 1); }));
  v1::SyncResponse revoke;
  revoke.mutable_revoke()->set_lease_id("lease-1");
  coordinator_->Send(revoke);
  EXPECT_TRUE(testing::WaitUntil(
      [&] {
        const std::string started = ReadFile(pids).value_or("");
        return std::count(started.begin(), started.end(), '\n') == 2;
      },
      absl::Minutes(1)));
  coordinator_->Send(Lease("lease-2", {"ok 1"}, "m", 1));
  EXPECT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 1); }));
  agent_.reset();
  ::unsetenv("FAKE_RUNNER_PIDS");
}

TEST_F(AgentRunnerTest, AUnitThatTheRunnerRefusesFailsAloneAndByItsOwnFault) {
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"refuse", "ok 1"}));
  ASSERT_TRUE(coordinator_->WaitFor(
      [](const Record& r) { return r.failures.size() == 1 && HasSample(r, 1); }));
  EXPECT_EQ(coordinator_->record().failures[0].message(), "no chat template");
  EXPECT_FALSE(coordinator_->record().failures[0].infrastructure());
}

TEST_F(AgentRunnerTest, AModelThatCannotBeHadIsTheMachinesFault) {
  StartAgent();
  v1::SyncResponse unknown = Lease("lease-1", {"ok 0"});
  unknown.mutable_grant()->mutable_model()->set_name("no-such-model");
  coordinator_->Send(unknown);
  v1::SyncResponse other_content = Lease("lease-2", {"ok 1"}, "m", 1);
  other_content.mutable_grant()->mutable_model()->set_model_hash("0123");
  coordinator_->Send(other_content);
  v1::SyncResponse no_artifact = Lease("lease-3", {"ok 2"}, "m", 2);
  no_artifact.mutable_grant()->mutable_model()->set_artifact_key(Sha256Hex("k"));
  coordinator_->Send(no_artifact);
  v1::SyncResponse hostile_key = Lease("lease-4", {"ok 3"}, "m", 3);
  hostile_key.mutable_grant()->mutable_model()->set_artifact_key("../../etc");
  coordinator_->Send(hostile_key);
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.failures.size() == 4; }));
  const Record record = coordinator_->record();
  const char* kSays[] = {"no-such-model", "the same files", "no artifact", "no artifact key"};
  for (int item = 0; item < 4; ++item) {
    const v1::UnitFailure* failure = FindFailure(record, item);
    ASSERT_NE(failure, nullptr);
    EXPECT_TRUE(failure->infrastructure());
    EXPECT_NE(failure->message().find(kSays[item]), std::string::npos) << failure->message();
  }
}

TEST_F(AgentRunnerTest, AModelThatDoesNotLoadFailsItsUnits) {
  MakeModel("broken", "cannot_load");
  MakeModel("deadly", "dies_on_load");
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"ok 0"}, "broken"));
  coordinator_->Send(Lease("lease-2", {"ok 1"}, "deadly", 1));
  coordinator_->Send(Lease("lease-3", {"ok 2"}, "m", 2));
  ASSERT_TRUE(coordinator_->WaitFor(
      [](const Record& r) { return r.failures.size() == 2 && HasSample(r, 2); }));
  const Record record = coordinator_->record();
  EXPECT_FALSE(FindFailure(record, 0)->infrastructure());
  EXPECT_TRUE(FindFailure(record, 1)->infrastructure());
}

TEST_F(AgentRunnerTest, AnotherModelIsLoadedOnlyWhenNothingRuns) {
  MakeModel("other");
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"hold"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return IsRunning(r, 1); }));
  coordinator_->Send(Lease("lease-2", {"ok 1"}, "other", 1));
  ASSERT_TRUE(coordinator_->WaitFor(
      [](const Record& r) { return r.last_heartbeat.slots(0).num_waiting_units() == 1; }));
  EXPECT_TRUE(coordinator_->record().samples.empty());
  v1::SyncResponse revoke;
  revoke.mutable_revoke()->set_lease_id("lease-1");
  coordinator_->Send(revoke);
  EXPECT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 1); }));
}

TEST_F(AgentRunnerTest, WithoutARunnerTheSlotSaysSoAndTheAgentLives) {
  Agent::Options options = Options();
  options.slot.runner.program = "/no/such/runner";
  options.provenance_wait = absl::Milliseconds(1);
  StartAgent(options);
  coordinator_->Send(Lease("lease-1", {"ok 0"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.failures.size() == 1; }));
  EXPECT_TRUE(coordinator_->record().failures[0].infrastructure());
  EXPECT_EQ(coordinator_->record().last_heartbeat.slots(0).phase(),
            v1::SlotState::PHASE_RESTARTING);
}

}  // namespace
}  // namespace assay::worker
