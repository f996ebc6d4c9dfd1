// Thousands of random histories: workers that crash, fall silent, lie about nothing and forget
// everything; people who pause, cancel and requeue. After every event the scheduler audits itself
// (SchedulerHarness), a model of who was granted what is compared, and in the end every sweep has
// settled.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "tests/unit/coordinator/scheduler/scheduler_harness.h"

namespace assay::coordinator {
namespace {

class Model : public testing::SchedulerHarness {
 public:
  explicit Model(uint64_t seed) : random_(seed) {}

  void PlayToTheEnd() {
    Build();
    for (int step = 0; step < 400 && !scheduler().sweeps().empty(); ++step) {
      Step();
      Check();
      if (::testing::Test::HasFailure()) return;
    }
    // From now on everything works: what is left must end.
    for (int64_t sweep = 1; sweep <= num_sweeps_; ++sweep) {
      Play([&](Actions* actions) { scheduler().ResumeSweep(sweep, actions); });
    }
    Hello("calm", "calm-1", {{1, 0}, {1, 0}, {2, 0}});
    for (int round = 0; round < 2000 && !scheduler().sweeps().empty(); ++round) {
      Advance(absl::Seconds(5));
      Beat("calm");
      FinishAllJobs();
      for (const auto& [unit, worker] : Leased()) {
        if (worker == "calm") Store(unit, worker);
      }
      Check();
      if (::testing::Test::HasFailure()) return;
    }
    EXPECT_TRUE(scheduler().sweeps().empty()) << "a sweep never ends";
    EXPECT_TRUE(scheduler().cells().empty());
    EXPECT_TRUE(scheduler().leases().empty());
  }

 private:
  int Below(int limit) { return static_cast<int>(random_() % static_cast<uint64_t>(limit)); }

  void Build() {
    const int num_cells = 1 + Below(4);
    for (int64_t cell = 1; cell <= num_cells; ++cell) {
      const int64_t artifact = Below(2) == 0 ? 0 : 100 + cell;
      const SlotNeed need = {Below(4) == 0 ? 2 : 1, 10 * Below(4)};
      AddCell(cell, 1 + Below(60), artifact, 1 + Below(2), need);
      if (artifact != 0) {
        Play([&](Actions*) {
          scheduler().AddJob({cell, scheduler().cells().at(cell).spec.load, 10 * Below(3)});
        });
      }
    }
    num_sweeps_ = 1 + Below(3);
    for (int64_t sweep = 1; sweep <= num_sweeps_; ++sweep) {
      std::vector<SweepPlace> places;
      for (int64_t cell = 1; cell <= num_cells; ++cell) {
        if (!scheduler().HasCell(cell) || (cell > 1 && Below(3) == 0)) continue;
        const int32_t num_items = scheduler().cells().at(cell).spec.num_items;
        places.push_back({cell, 1 + Below(3), 1 + Below(num_items)});
      }
      if (places.empty()) continue;
      AddSweep(sweep, places, 10 * (1 + Below(2)), Below(2) == 0 ? "ada" : "bob");
    }
    // Every cell is wanted, or it would never be forgotten.
    std::vector<SweepPlace> rest;
    for (const auto& [cell_id, cell] : scheduler().cells()) {
      if (cell.places.empty()) rest.push_back({cell_id, 1, 1});
    }
    if (!rest.empty()) AddSweep(++num_sweeps_, rest);
  }

  void Step() {
    const std::string worker = "w" + std::to_string(Below(4));
    switch (Below(13)) {
      case 0: {
        // A start of a worker always has the same slots.
        const int start = Below(30);
        std::vector<SlotShape> shapes;
        for (int i = 0; i <= start % 3; ++i) {
          shapes.push_back({(start + i) % 4 == 0 ? 2 : 1, 10 * ((start / 3 + i) % 4)});
        }
        Hello(worker, "i" + std::to_string(start), shapes);
        break;
      }
      case 1:
      case 2:
      case 3:
        if (scheduler().workers().contains(worker)) {
          WorkerHeartbeat heartbeat = MakeHeartbeat(worker, 1 + Below(40));
          for (LeaseProgress& lease : heartbeat.leases) lease.tokens_generated += Below(3);
          if (Below(5) == 0 && !heartbeat.leases.empty()) heartbeat.leases.pop_back();
          Beat(heartbeat);
        }
        break;
      case 4:
      case 5:
      case 6: {
        // Some samples arrive; now and then one of a unit that is queued again.
        for (const auto& [unit, holder] : Leased()) {
          if (Below(3) == 0) Store(unit, holder, Below(500));
        }
        break;
      }
      case 7:
        Advance(absl::Seconds(Below(80)));
        break;
      case 8: {
        for (const auto& [number, lease] : std::map(scheduler().leases())) {
          if (Below(4) != 0) continue;
          GrantUnits grant;
          grant.lease_id = lease.lease_id;
          const CellState& cell = scheduler().cells().at(lease.cell_id);
          for (const int32_t index : std::set(lease.units)) {
            const UnitId unit{lease.cell_id, cell.units.ItemOf(index), cell.units.RepeatOf(index)};
            const bool infrastructure = Below(2) == 0;
            Fail(grant, unit, 1 + (Below(10) == 0 ? 1 : 0), infrastructure);
            if (!scheduler().HasCell(lease.cell_id)) break;
          }
        }
        break;
      }
      case 9:
        Play([&](Actions* actions) { scheduler().PauseSweep(1 + Below(3), actions); });
        break;
      case 10:
        Play([&](Actions* actions) { scheduler().ResumeSweep(1 + Below(3), actions); });
        break;
      case 11:
        if (Below(10) == 0) {
          Play([&](Actions* actions) { scheduler().CancelSweep(1 + Below(3), actions); });
        } else if (!scheduler().cells().empty()) {
          const auto first = scheduler().cells().begin();
          Play([&](Actions*) {
            scheduler().RequeueUnit({first->first, Below(first->second.spec.num_items), 0});
          });
        }
        break;
      case 12:
        FinishAllJobs();
        break;
    }
  }

  void FinishAllJobs() {
    for (const auto& entry : std::map(scheduler().jobs())) {
      const int64_t job_id = entry.first;
      const JobEntry& job = entry.second;
      if (job.status != JobStatus::kLeased) continue;
      const int64_t artifact = job.spec.load.artifact_id;
      if (Below(4) == 0) {
        const bool infrastructure = Below(2) == 0;
        const bool give_up = scheduler().WouldGiveUp(job_id, infrastructure);
        Play([&](Actions* actions) {
          scheduler().OnJobFailed(job_id, artifact, give_up, "no", now(), actions);
        });
      } else {
        Play([&](Actions* actions) { scheduler().OnJobDone(job_id, artifact, actions); });
      }
    }
  }

  std::vector<std::pair<UnitId, std::string>> Leased() {
    std::vector<std::pair<UnitId, std::string>> leased;
    for (const auto& [number, lease] : scheduler().leases()) {
      const CellState& cell = scheduler().cells().at(lease.cell_id);
      for (const int32_t index : lease.units) {
        leased.push_back({{lease.cell_id, cell.units.ItemOf(index), cell.units.RepeatOf(index)},
                          lease.worker_id});
      }
    }
    return leased;
  }

  // No unit is with two leases at once, and a slot holds no more than it may.
  void Check() {
    std::set<UnitId> seen;
    for (const auto& [unit, worker] : Leased()) EXPECT_TRUE(seen.insert(unit).second);
    for (const auto& [worker_id, worker] : scheduler().workers()) {
      for (const SlotState& slot : worker.slots) {
        std::set<LoadId> loads;
        for (const int64_t number : slot.leases) {
          const CellState& cell = scheduler().cells().at(scheduler().leases().at(number).cell_id);
          loads.insert(cell.spec.load);
          EXPECT_TRUE(Fits(cell.need(), slot.info.shape())) << "a cell on a slot too small for it";
        }
        EXPECT_LE(loads.size(), 1u) << "a slot with leases of two models";
        if (slot.alone) {
          EXPECT_EQ(slot.num_committed, 1);
        }
        EXPECT_LE(slot.num_committed, 64 + 16);
      }
    }
  }

  std::mt19937_64 random_;
  int64_t num_sweeps_ = 0;
};

TEST(SchedulerModelTest, RandomHistoriesKeepTheInvariantsAndEnd) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Model(seed).PlayToTheEnd();
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(SchedulerModelTest, EqualHistoriesGiveEqualDecisions) {
  const auto play = [](uint64_t seed) {
    Model model(seed);
    model.PlayToTheEnd();
    std::vector<std::string> leases;
    for (const GrantUnits& grant : model.All<GrantUnits>()) {
      leases.push_back(grant.lease_id + grant.worker_id + std::to_string(grant.units.size()));
    }
    return leases;
  };
  for (uint64_t seed = 1000; seed < 1010; ++seed) EXPECT_EQ(play(seed), play(seed));
}

}  // namespace
}  // namespace assay::coordinator
