// Who gets how much of the fleet, and which slots can hold what.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/unit/coordinator/scheduler/scheduler_harness.h"

namespace assay::coordinator {
namespace {

constexpr int64_t kGib = int64_t{1} << 30;

class PlacementTest : public ::testing::Test, protected testing::SchedulerHarness {
 protected:
  int64_t Charged(const std::string& owner) {
    const auto it = scheduler().owners().find(owner);
    return it == scheduler().owners().end() ? 0 : it->second.num_charged;
  }
  // Cells of which units are leased now.
  std::set<int64_t> Running() {
    std::set<int64_t> cells;
    for (const auto& [number, lease] : scheduler().leases()) cells.insert(lease.cell_id);
    return cells;
  }
  // Every unit that is leased ends; the slots report.
  void FinishAll(const std::vector<std::string>& workers) {
    std::vector<UnitId> units;
    for (const auto& [number, lease] : scheduler().leases()) {
      const CellState& cell = scheduler().cells().at(lease.cell_id);
      for (const int32_t index : lease.units) {
        units.push_back({lease.cell_id, cell.units.ItemOf(index), cell.units.RepeatOf(index)});
      }
    }
    for (const UnitId& unit : units) Store(unit);
    for (const std::string& worker : workers) Beat(worker);
  }
};

// Owners ----------------------------------------------------------------------------------------

TEST_F(PlacementTest, TenSweepsOfOneOwnerWeighAsMuchAsOneOfAnother) {
  for (int64_t sweep = 1; sweep <= 10; ++sweep) {
    AddCell(sweep, 5000, 0, /*model_id=*/sweep);
    AddSweep(sweep, {{sweep, 1, 5000}}, 50, "ada");
  }
  AddCell(11, 5000, 0, 11);
  AddSweep(11, {{11, 1, 5000}}, 50, "bob");
  for (int i = 0; i < 20; ++i) Join("w" + std::to_string(i), "a");
  EXPECT_NEAR(static_cast<double>(Charged("ada")), static_cast<double>(Charged("bob")), 64);
  // And what ada gets is shared by her ten.
  for (int64_t sweep = 1; sweep <= 10; ++sweep) {
    EXPECT_GT(scheduler().sweeps().at(sweep).num_charged, 0) << sweep;
  }
}

TEST_F(PlacementTest, OnASingleSlotOwnersTakeTurns) {
  // Each lease ends its cell, so that every grant is a new choice.
  for (int64_t cell = 1; cell <= 40; ++cell) AddCell(cell, 4, 0, /*model_id=*/cell);
  for (int64_t sweep = 1; sweep <= 30; ++sweep) AddSweep(sweep, {{sweep, 1, 4}}, 50, "ada");
  for (int64_t sweep = 31; sweep <= 40; ++sweep) AddSweep(sweep, {{sweep, 1, 4}}, 50, "bob");
  Join("w1", "a");
  int num_of_bob = 0;
  for (int turn = 0; turn < 20; ++turn) {
    num_of_bob += *Running().begin() > 30 ? 1 : 0;
    FinishAll({"w1"});
  }
  EXPECT_EQ(num_of_bob, 10);
}

TEST_F(PlacementTest, AnOwnerWhoIsAloneGetsEverything) {
  AddCell(1, 5000);
  AddSweep(1, {{1, 1, 5000}}, 50, "ada");
  for (int i = 0; i < 4; ++i) Join("w" + std::to_string(i), "a");
  EXPECT_EQ(scheduler().leases().size(), 4u);
  EXPECT_EQ(scheduler().owners().size(), 1u);
  Play([&](Actions* actions) { scheduler().CancelSweep(1, actions); });
  EXPECT_TRUE(scheduler().owners().empty());
}

TEST_F(PlacementTest, AHundredJobsOfOneOwnerHoldNobodyUp) {
  std::vector<SweepPlace> places;
  for (int64_t cell = 1; cell <= 100; ++cell) {
    AddCell(cell, 10, /*artifact_id=*/1000 + cell);
    places.push_back({cell, 1, 10});
    Play([&](Actions*) { scheduler().AddJob({cell, scheduler().cells().at(cell).spec.load}); });
  }
  AddSweep(1, places, 50, "ada");
  AddCell(200, 5000, 0, 2);
  AddSweep(2, {{200, 1, 5000}}, 50, "bob");
  for (int i = 0; i < 8; ++i) Join("w" + std::to_string(i), "a");
  EXPECT_GT(Charged("bob"), 0);
  EXPECT_GT(scheduler().owners().at("ada").num_jobs, 0);
  EXPECT_NEAR(static_cast<double>(Charged("bob")),
              static_cast<double>(kUnitsOfAJob * scheduler().owners().at("ada").num_jobs), 64);
}

// Slots -----------------------------------------------------------------------------------------

TEST_F(PlacementTest, ACellGoesOnlyToASlotThatHoldsIt) {
  AddCell(1, 500, 0, 1, {1, 60 * kGib});
  AddCell(2, 500, 0, 2, {2, 120 * kGib});
  AddCell(3, 500, 0, 3, {1, 10 * kGib});
  AddSweep(1, {{1, 1, 500}, {2, 1, 500}, {3, 1, 500}});
  Join("small", "a", {{1, 24 * kGib}, {1, 24 * kGib}});
  EXPECT_EQ(Running(), (std::set<int64_t>{3}));
  Join("pair", "b", {{2, 156 * kGib}});
  EXPECT_EQ(Running(), (std::set<int64_t>{2, 3}));
  Join("big", "c", {{1, 78 * kGib}});
  EXPECT_EQ(Running(), (std::set<int64_t>{1, 2, 3}));
  for (const GrantUnits& grant : All<GrantUnits>()) {
    const std::map<std::string, std::set<int64_t>> allowed = {
        {"small", {3}}, {"pair", {2}}, {"big", {1, 3}}};
    EXPECT_TRUE(allowed.at(grant.worker_id).contains(grant.cell_id))
        << grant.worker_id << " got cell " << grant.cell_id;
  }
}

TEST_F(PlacementTest, ACellThatFitsNowhereWaitsWithItsReasonAndHoldsNobodyUp) {
  Join("w1", "a", {{1, 24 * kGib}});
  AddCell(1, 8, 0, 1, {2, 148 * kGib});
  AddCell(2, 8, 0, 2, {2, 148 * kGib});
  AddCell(3, 4, 0, 3);
  AddSweep(1, {{1, 1, 8}, {2, 1, 8}}, /*priority=*/90, "ada");
  AddSweep(2, {{3, 1, 4}}, /*priority=*/10, "bob");
  EXPECT_EQ(Running(), (std::set<int64_t>{3}));
  const std::string reason = "needs 2 GPUs of 74.0 GiB; the largest slot has 1 GPU of 24.0 GiB";
  EXPECT_EQ(scheduler().WhyNoSlot(1), reason);
  EXPECT_EQ(scheduler().WhyNoSlot(3), "");
  ASSERT_EQ(All<CellsWait>().size(), 1u) << "once for all cells that need the same";
  EXPECT_EQ(All<CellsWait>()[0].sweep_id, 1);
  EXPECT_EQ(All<CellsWait>()[0].num_cells, 2);
  EXPECT_EQ(All<CellsWait>()[0].reason, reason);
  for (int i = 0; i < 5; ++i) Beat("w1");
  EXPECT_EQ(All<CellsWait>().size(), 1u) << "and not again while nothing changes";

  Join("w2", "b", {{2, 160 * kGib}});
  EXPECT_EQ(scheduler().WhyNoSlot(1), "");
  EXPECT_EQ(Running(), (std::set<int64_t>{1, 3}));
}

TEST_F(PlacementTest, CellsWaitAgainWhenTheirOnlySlotDrainsOrFallsSilent) {
  AddCell(1, 500, 0, 1, {2, 100 * kGib});
  AddSweep(1, {{1, 1, 500}});
  Join("pair", "a", {{2, 156 * kGib}});
  Join("single", "b", {{1, 0}});
  EXPECT_TRUE(All<CellsWait>().empty());
  Play([&](Actions* actions) { scheduler().DrainWorker("pair", actions); });
  ASSERT_EQ(All<CellsWait>().size(), 1u);
  EXPECT_EQ(All<CellsWait>()[0].reason, "needs 2 GPUs of 50.0 GiB; the largest slot has 1 GPU");
  // Its next start takes work again, until it falls silent.
  Join("pair", "a2", {{2, 156 * kGib}});
  EXPECT_EQ(scheduler().WhyNoSlot(1), "");
  for (int i = 0; i < 6; ++i) {
    Advance(absl::Seconds(5));
    Beat("single");
  }
  EXPECT_EQ(All<CellsWait>().size(), 2u);
}

TEST_F(PlacementTest, WithoutAnyWorkerNobodyIsToldOfSlots) {
  AddCell(1, 8, 0, 1, {2, 100 * kGib});
  AddSweep(1, {{1, 1, 8}});
  EXPECT_TRUE(All<CellsWait>().empty());
  EXPECT_EQ(scheduler().WhyNoSlot(1), "no worker takes work now");
}

// Two cells of one model, which differ in whose arithmetic they belong to.
TEST_F(PlacementTest, ACudaCellNeverGoesToACpuSlotAndSaysWhatItWaitsFor) {
  const SlotShape cpu = {1, 0, /*is_cpu=*/true, "cpu-2"};
  AddCell(1, 500, 0, 1, {1, kGib, kGib, "cuda-1"});
  AddCell(2, 500, 0, 1, {1, kGib, kGib, "cpu-2"});
  AddSweep(1, {{1, 1, 500}}, /*priority=*/90);
  AddSweep(2, {{2, 1, 500}}, /*priority=*/10);
  Join("cpus", "a", {cpu, cpu});
  EXPECT_EQ(Running(), (std::set<int64_t>{2}));
  EXPECT_EQ(scheduler().WhyNoSlot(1), "needs a slot with cuda-1; workers offer cpu-2");
  ASSERT_EQ(All<CellsWait>().size(), 1u);
  EXPECT_EQ(All<CellsWait>()[0].cell_id, 1);
  Join("gpu", "b", {{1, 78 * kGib, /*is_cpu=*/false, "cuda-1"}});
  EXPECT_EQ(scheduler().WhyNoSlot(1), "");
  for (const GrantUnits& grant : All<GrantUnits>()) {
    EXPECT_EQ(grant.cell_id, grant.worker_id == "gpu" ? 1 : 2);
  }
  EXPECT_EQ(Running(), (std::set<int64_t>{1, 2}));
}

// A quantizer computes alike everywhere, so that a cell's artifact need not wait for a GPU.
TEST_F(PlacementTest, TheArtifactOfACudaCellMayBeMadeByACpuSlot) {
  AddCell(1, 4, /*artifact_id=*/7, 1, {1, kGib, kGib, "cuda-1"});
  Play([&](Actions*) { scheduler().AddJob({1, scheduler().cells().at(1).spec.load}); });
  AddSweep(1, {{1, 1, 4}});
  Join("cpu", "a", {{1, 0, /*is_cpu=*/true, "cpu-2"}});
  ASSERT_EQ(All<GrantJob>().size(), 1u);
  Play([&](Actions* actions) { scheduler().OnJobDone(1, 7, actions); });
  Beat("cpu");
  EXPECT_TRUE(Running().empty());
  Join("gpu", "b", {{1, 0, /*is_cpu=*/false, "cuda-1"}});
  EXPECT_EQ(Running(), (std::set<int64_t>{1}));
}

// Calibration runs the unquantized model, which may need more than what comes of it.
TEST_F(PlacementTest, AJobGoesOnlyToASlotThatHoldsTheUnquantizedModel) {
  CellSpec spec;
  spec.cell_id = 1;
  spec.load = {1, 7, 1};
  spec.artifact = ArtifactStatus::kMissing;
  spec.benchmark_id = 1;
  spec.num_items = 4;
  spec.memory_need_bytes = 20 * kGib;
  spec.artifact_need_bytes = 60 * kGib;
  scheduler().AddCell(spec);
  Play([&](Actions*) { scheduler().AddJob({1, spec.load, spec.artifact_need_bytes}); });
  AddSweep(1, {{1, 1, 4}});
  Join("small", "a", {{1, 24 * kGib}});
  EXPECT_TRUE(All<GrantJob>().empty());
  EXPECT_EQ(scheduler().WhyNoSlot(1), "quantizing needs 60.0 GiB; the largest slot has 24.0 GiB");
  ASSERT_EQ(All<CellsWait>().size(), 1u);
  Join("big", "b", {{1, 78 * kGib}});
  ASSERT_EQ(All<GrantJob>().size(), 1u);
  EXPECT_EQ(All<GrantJob>()[0].worker_id, "big");
  Play([&](Actions* actions) { scheduler().OnJobDone(1, 7, actions); });
  EXPECT_EQ(scheduler().WhyNoSlot(1), "");
  EXPECT_FALSE(scheduler().leases().empty()) << "and what came of it runs on either";
}

// The model that a slot has loaded is no reason to give it more of that model than it holds: a cell
// with a longer context needs more.
TEST_F(PlacementTest, ALoadedModelDoesNotBringACellThatIsTooLarge) {
  AddCell(1, 4, 0, 1, {1, 20 * kGib});
  AddCell(2, 4, 0, 1, {1, 40 * kGib});
  AddCell(3, 4, 0, 2, {1, 20 * kGib});
  AddSweep(1, {{1, 1, 4}, {2, 1, 4}, {3, 1, 4}});
  Join("small", "a", {{1, 24 * kGib}});
  EXPECT_EQ(Running(), (std::set<int64_t>{1}));
  FinishAll({"small"});
  EXPECT_EQ(Running(), (std::set<int64_t>{3}));
  FinishAll({"small"});
  EXPECT_TRUE(Running().empty());
  Join("big", "b", {{1, 48 * kGib}});
  EXPECT_EQ(Running(), (std::set<int64_t>{2}));
}

// People ----------------------------------------------------------------------------------------

// The order leaves with the event itself, and a worker that did not hear it hears it in answer to
// its next heartbeat: one heartbeat at most.
TEST_F(PlacementTest, APausedSweepHoldsNothingAndGetsNothing) {
  AddCell(1, 500, 0, 1);
  AddCell(2, 500, 0, 2);
  AddSweep(1, {{1, 1, 500}}, 50, "ada");
  AddSweep(2, {{2, 1, 500}}, 50, "bob");
  Join("w1", "a");
  Join("w2", "b");
  EXPECT_EQ(Running(), (std::set<int64_t>{1, 2}));
  const WorkerHeartbeat heard_nothing = MakeHeartbeat("w1");
  Play([&](Actions* actions) { scheduler().PauseSweep(1, actions); });
  EXPECT_FALSE(Last<TellRevoke>().empty());
  EXPECT_EQ(Charged("ada"), 0);
  Beat(heard_nothing);
  std::set<std::string> revoked;
  for (const TellRevoke& revoke : Last<TellRevoke>()) revoked.insert(revoke.lease_id);
  for (const LeaseProgress& lease : heard_nothing.leases) {
    EXPECT_TRUE(revoked.contains(lease.lease_id)) << lease.lease_id;
  }
  for (int i = 0; i < 5; ++i) {
    Advance(absl::Seconds(5));
    for (const char* worker : {"w1", "w2"}) Beat(worker);
    EXPECT_EQ(Running(), (std::set<int64_t>{2}));
  }
}

}  // namespace
}  // namespace assay::coordinator
