// Owners, slots and pauses through the database: what the scheduler decides must survive a restart.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/coordinator/control/control_harness.h"

namespace assay::coordinator {
namespace {

using storage::InsertOutcome;
using ::testing::Each;
using ::testing::IsEmpty;
using testing::MakePlan;

class ControlPlacementTest : public ::testing::Test, protected testing::ControlHarness {
 protected:
  static PlannedSweep PlanWithNeed(int64_t bytes) {
    PlannedSweep plan = MakePlan(1, 4);
    plan.cells[0].cell.memory_need_bytes = bytes;
    return plan;
  }
  void HelloWithMemory(const std::string& worker, int64_t bytes) {
    HelloCommand command;
    command.hello.worker_id = worker;
    command.hello.incarnation = "a";
    command.hello.slots = {{.index = 0, .memory_bytes = bytes}};
    EXPECT_OK(Batch([&](ControlPlane& plane) { EXPECT_OK(plane.HandleHello(command)); }));
    Beat(MakeHeartbeat(worker, "a"));
  }
  int64_t NumEvents(const std::string& kind) {
    const std::vector<std::string> kinds = EventKinds();
    return std::ranges::count(kinds, kind);
  }
};

TEST_F(ControlPlacementTest, ACellThatFitsNowhereWaitsInTheSnapshotAndInTheEvents) {
  constexpr int64_t kGib = int64_t{1} << 30;
  const int64_t sweep = Submit(PlanWithNeed(60 * kGib));
  EXPECT_EQ(plane().TakeSnapshot().sweeps.at(sweep).cells[0].waiting_reason,
            "no worker takes work now");
  EXPECT_EQ(NumEvents("cell_waits_for_slot"), 0);
  HelloWithMemory("small", 24 * kGib);
  Crash();
  HelloWithMemory("small", 24 * kGib);
  EXPECT_THAT(Messages<GrantMessage>(), IsEmpty());
  EXPECT_EQ(plane().TakeSnapshot().sweeps.at(sweep).cells[0].waiting_reason,
            "needs 60.0 GiB; the largest slot has 24.0 GiB");
  EXPECT_EQ(plane().TakeSnapshot().num_cells_without_slot, 1);
  EXPECT_EQ(NumEvents("cell_waits_for_slot"), 2) << "once by each start of the coordinator";
  HelloWithMemory("big", 78 * kGib);
  ASSERT_EQ(Messages<GrantMessage>().size(), 1u);
  EXPECT_EQ(plane().TakeSnapshot().sweeps.at(sweep).cells[0].waiting_reason, "");
}

TEST_F(ControlPlacementTest, OwnersAreKnownAfterARestart) {
  const int64_t sweep = Submit(MakePlan(1, 4));
  Crash();
  EXPECT_EQ(plane().scheduler().sweeps().at(sweep).owner, "ada");
  EXPECT_EQ(plane().scheduler().owners().at("ada").num_sweeps, 1);
}

// The worker misses the order to stop. It hears it in answer to the next heartbeat, gets nothing
// new, and what it had finished meanwhile is not thrown away.
TEST_F(ControlPlacementTest, APausedSweepIsOffItsWorkerAfterOneHeartbeat) {
  const int64_t sweep = Submit(MakePlan(1, 40));
  Join("w1", "a");
  const std::vector<GrantMessage> grants = Messages<GrantMessage>();
  ASSERT_FALSE(grants.empty());
  const HeartbeatCommand still_running = MakeHeartbeat("w1", "a");
  EXPECT_OK(Batch([&](ControlPlane& plane) { EXPECT_OK(plane.HandlePause(sweep)); }));
  ClearMessages();
  Beat(still_running);
  std::set<std::string> revoked;
  for (const RevokeMessage& revoke : Messages<RevokeMessage>()) revoked.insert(revoke.lease_id);
  for (const GrantMessage& grant : grants) EXPECT_TRUE(revoked.contains(grant.lease_id));
  EXPECT_THAT(Messages<GrantMessage>(), IsEmpty());
  EXPECT_THAT(*Report({MakeSample(grants[0], grants[0].units[0])}), Each(InsertOutcome::kAccepted));
  Beat(MakeHeartbeat("w1", "a"));
  EXPECT_THAT(Messages<GrantMessage>(), IsEmpty());
}

}  // namespace
}  // namespace assay::coordinator
