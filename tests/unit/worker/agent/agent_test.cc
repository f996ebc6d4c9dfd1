// The agent against a coordinator in this process and runners that misbehave on demand; the graders
// are the real ones.
#include "worker/agent/agent.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "base/hash.h"
#include "base/numerics_version.h"
#include "storage/text/text_codec.h"
#include "tests/testing/local_system.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/worker/agent/fake_coordinator.h"

namespace assay::worker {
namespace {

namespace fs = std::filesystem;
using testing::BinaryPath;
using testing::IsError;
using testing::TemporaryDirectory;
using Record = FakeCoordinator::Record;

constexpr absl::Duration kPatience = absl::Seconds(60);

class AgentTest : public ::testing::Test {
 protected:
  AgentTest() {
    ::signal(SIGPIPE, SIG_IGN);
    MakeModel("m");
    coordinator_ = std::make_unique<FakeCoordinator>();
  }

  void MakeModel(const std::string& name, const std::string& mark = "") {
    const fs::path folder = fs::path(directory_.path()) / "models" / name;
    fs::create_directories(folder);
    std::ofstream(folder / "config.json") << "{\"name\":\"" << name << "\"}";
    std::ofstream(folder / "model.safetensors") << "weights of " << name;
    if (!mark.empty()) std::ofstream(folder / mark) << "";
  }

  std::string ModelHash(const std::string& name) {
    ModelHasher hasher;
    return hasher.Hash(directory_ / ("models/" + name)).value_or("");
  }

  Agent::Options Options() {
    Agent::Options options;
    options.coordinator = coordinator_->address();
    options.worker_id = "w1";
    options.model_roots = {directory_ / "models"};
    options.artifacts_dir = directory_ / "artifacts";
    options.num_slots = 1;
    options.slot.runner.program = BinaryPath("../tests/bin/assay-fake-runner");
    options.slot.max_num_seqs = 4;
    options.slot.first_restart_delay = absl::Milliseconds(1);
    options.slot.longest_restart_delay = absl::Milliseconds(20);
    options.spool.directory = directory_ / "spool";
    options.graders.program = BinaryPath("assay-grader");
    options.flush_grace = absl::Seconds(5);
    options.provenance_wait = absl::Seconds(2);
    return options;
  }

  void StartAgent(const Agent::Options& options) {
    absl::StatusOr<std::unique_ptr<Agent>> agent = Agent::Start(options);
    ASSERT_OK(agent.status());
    agent_ = *std::move(agent);
  }
  void StartAgent() { StartAgent(Options()); }

  // A lease of one unit per text; item i has gold i.
  v1::SyncResponse Lease(const std::string& lease_id, const std::vector<std::string>& texts,
                         const std::string& model = "m", int first_item = 0) {
    v1::SyncResponse response;
    v1::Grant* grant = response.mutable_grant();
    grant->set_lease_id(lease_id);
    grant->set_cell_id(5);
    grant->mutable_model()->set_name(model);
    grant->mutable_model()->set_model_hash(ModelHash(model));
    grant->mutable_sampling()->set_max_tokens(16);
    grant->set_grader("boxed_number");
    for (size_t i = 0; i < texts.size(); ++i) {
      v1::Unit* unit = grant->add_units();
      unit->mutable_key()->set_cell_id(5);
      unit->mutable_key()->set_item_index(first_item + static_cast<int>(i));
      unit->set_epoch(3);
      unit->set_seed(100 + i);
      unit->set_user_text(texts[i]);
      unit->set_gold(std::to_string(first_item + static_cast<int>(i)));
    }
    return response;
  }

  static bool HasSample(const Record& record, int item) {
    return std::any_of(record.samples.begin(), record.samples.end(),
                       [item](const v1::Sample& s) { return s.unit().item_index() == item; });
  }
  static const v1::UnitFailure* FindFailure(const Record& record, int item) {
    for (const v1::UnitFailure& failure : record.failures) {
      if (failure.unit().item_index() == item) return &failure;
    }
    return nullptr;
  }
  static bool HoldsNothing(const Record& record) {
    return record.last_heartbeat.leases().empty() && record.last_heartbeat.slots_size() == 1 &&
           record.last_heartbeat.slots(0).num_running_units() == 0;
  }
  static bool IsRunning(const Record& record, int num_units) {
    return record.last_heartbeat.slots_size() == 1 &&
           record.last_heartbeat.slots(0).num_running_units() == num_units;
  }

  TemporaryDirectory directory_;
  std::unique_ptr<FakeCoordinator> coordinator_;
  std::unique_ptr<Agent> agent_;
};

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

TEST_F(AgentTest, ADeadRunnerFailsWhatItRanAndTheRestIsDoneByTheNext) {
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
TEST_F(AgentTest, ADeviceFaultIsTheReasonOfItsUnitsAndTheSlotGoesOn) {
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
TEST_F(AgentTest, ARunnerThatLoadsForLongIsNotStuck) {
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

TEST_F(AgentTest, ARunnerThatSpeaksGarbageIsReplaced) {
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"garbage"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.failures.size() == 1; }));
  EXPECT_NE(coordinator_->record().failures[0].message().find("a frame claims"), std::string::npos);
  coordinator_->Send(Lease("lease-2", {"ok 1"}, "m", 1));
  EXPECT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 1); }));
}

TEST_F(AgentTest, ARunnerWithoutProgressIsKilledAndItsUnitsFail) {
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
TEST_F(AgentTest, AStuckRunnerIsKilledThoughItsUnitsAreTakenAway) {
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

TEST_F(AgentTest, AUnitThatTheRunnerRefusesFailsAloneAndByItsOwnFault) {
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"refuse", "ok 1"}));
  ASSERT_TRUE(coordinator_->WaitFor(
      [](const Record& r) { return r.failures.size() == 1 && HasSample(r, 1); }));
  EXPECT_EQ(coordinator_->record().failures[0].message(), "no chat template");
  EXPECT_FALSE(coordinator_->record().failures[0].infrastructure());
}

TEST_F(AgentTest, AModelThatCannotBeHadIsTheMachinesFault) {
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

TEST_F(AgentTest, AModelThatDoesNotLoadFailsItsUnits) {
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

TEST_F(AgentTest, AnotherModelIsLoadedOnlyWhenNothingRuns) {
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

TEST_F(AgentTest, SamplesOutliveACoordinatorThatIsAway) {
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

TEST_F(AgentTest, SamplesOutliveTheAgent) {
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

TEST_F(AgentTest, FencedAndDuplicateSamplesAreForgotten) {
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

TEST_F(AgentTest, OneSampleThatTheCoordinatorRefusesDoesNotHoldUpTheOthers) {
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

TEST_F(AgentTest, AnAnswerWithoutAnOutcomePerSampleIsNoAnswer) {
  coordinator_->SetReportHandler([](const auto&, auto*) { return grpc::Status::OK; });
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"ok 0"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.num_reports >= 2; }));
  coordinator_->SetReportHandler(nullptr);
  EXPECT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 0); }));
}

TEST_F(AgentTest, ASampleThatIsTooLargeForTheWireFailsItsUnit) {
  StartAgent();
  coordinator_->Send(Lease("lease-1", {"huge", "ok 1"}));
  ASSERT_TRUE(coordinator_->WaitFor(
      [](const Record& r) { return r.failures.size() == 1 && HasSample(r, 1); }));
  EXPECT_NE(coordinator_->record().failures[0].message().find("a report holds at most"),
            std::string::npos);
}

TEST_F(AgentTest, AGraderThatCannotRunIsAnErrorOfTheGraderAndNotAWrongAnswer) {
  Agent::Options options = Options();
  options.graders.program = "/bin/false";
  StartAgent(options);
  coordinator_->Send(Lease("lease-1", {"ok 0"}));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 0); }));
  const v1::Grade grade = coordinator_->record().samples[0].grade();
  EXPECT_EQ(grade.verdict(), v1::Grade::VERDICT_GRADER_ERROR);
  EXPECT_NE(grade.detail(), "");
}

TEST_F(AgentTest, AGraderThatHangsIsKilledAndItsVerdictIsAnError) {
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

TEST_F(AgentTest, AGraderThatIsKilledOnceIsReplacedAndTheVerdictIsTrue) {
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
TEST_F(AgentTest, AFullDiskPausesNewWorkAndLosesNothing) {
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

// Jobs --------------------------------------------------------------------------------------------

v1::SyncResponse Job(const std::string& hash, const std::string& key, const std::string& bits) {
  v1::SyncResponse response;
  v1::JobGrant* job = response.mutable_job();
  job->set_job_id(9);
  job->set_epoch(2);
  v1::ModelRef* model = job->mutable_quantize()->mutable_model();
  model->set_name("m");
  model->set_model_hash(hash);
  model->set_artifact_key(key);
  model->mutable_method()->set_bits(bits);
  return response;
}

TEST_F(AgentTest, AQuantizeJobEndsInAnUploadedArtifactThatUnitsCanUse) {
  StartAgent();
  const std::string key = Sha256Hex("artifact");
  coordinator_->Send(Job(ModelHash("m"), key, "4-16-16"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 1; }));
  const Record record = coordinator_->record();
  EXPECT_EQ(record.jobs[0].error(), "");
  EXPECT_EQ(record.jobs[0].epoch(), 2);
  EXPECT_EQ(record.jobs[0].artifact_key(), key);
  EXPECT_EQ(record.jobs[0].artifact_manifest_sha256().size(), 64u);
  EXPECT_EQ(record.uploads.at(key), "{}");

  v1::SyncResponse lease = Lease("lease-1", {"ok 0"});
  lease.mutable_grant()->mutable_model()->set_artifact_key(key);
  coordinator_->Send(lease);
  EXPECT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 0); }));

  // The same job again, after its end got lost: nothing is made twice.
  coordinator_->Send(Job(ModelHash("m"), key, "die"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 2; }));
  EXPECT_EQ(coordinator_->record().jobs[1].error(), "");
}

TEST_F(AgentTest, ArtifactsBeyondTheBoundGoAndTheOneInUseStays) {
  Agent::Options options = Options();
  options.max_artifact_bytes = 400;  // one with its manifest, not two
  StartAgent(options);
  const auto is_here = [this](const std::string& key) {
    return fs::exists(directory_ / ("artifacts/" + key));
  };
  const std::string first = Sha256Hex("first");
  const std::string second = Sha256Hex("second");
  const std::string third = Sha256Hex("third");
  coordinator_->Send(Job(ModelHash("m"), first, "4-16-16"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 1; }));
  ASSERT_TRUE(is_here(first));
  coordinator_->Send(Job(ModelHash("m"), second, "4-16-16"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 2; }));
  EXPECT_FALSE(is_here(first)) << "unused for longest";
  ASSERT_TRUE(is_here(second));

  v1::SyncResponse lease = Lease("lease-1", {"ok 0"});
  lease.mutable_grant()->mutable_model()->set_artifact_key(second);
  coordinator_->Send(lease);
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 0); }));
  coordinator_->Send(Job(ModelHash("m"), third, "4-16-16"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 3; }));
  EXPECT_TRUE(is_here(second)) << "a slot has loaded it";
  EXPECT_FALSE(is_here(third));
}

TEST_F(AgentTest, AFailedJobSaysWhoseFaultItIs) {
  StartAgent();
  coordinator_->Send(Job(ModelHash("m"), Sha256Hex("a"), "fail"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 1; }));
  EXPECT_EQ(coordinator_->record().jobs[0].error(), "bits 'fail' are unknown");
  EXPECT_FALSE(coordinator_->record().jobs[0].infrastructure());
  coordinator_->Send(Job(ModelHash("m"), Sha256Hex("b"), "die"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 2; }));
  EXPECT_TRUE(coordinator_->record().jobs[1].infrastructure());
  coordinator_->Send(Job("other content", Sha256Hex("c"), "4-16-16"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 3; }));
  EXPECT_TRUE(coordinator_->record().jobs[2].infrastructure());
  coordinator_->Send(Job(ModelHash("m"), Sha256Hex("d"), "full"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 4; }));
  EXPECT_TRUE(coordinator_->record().jobs[3].infrastructure());
}

// Quantizing may take hours; a runner that was stopped in it must not take them too.
TEST_F(AgentTest, ARunnerThatFallsSilentWhileItQuantizesIsReplaced) {
  Agent::Options options = Options();
  options.slot.stuck_timeout = absl::Milliseconds(200);
  StartAgent(options);
  coordinator_->Send(Job(ModelHash("m"), Sha256Hex("a"), "freeze"));
  ASSERT_TRUE(coordinator_->WaitFor([](const Record& r) { return r.jobs.size() == 1; }));
  EXPECT_TRUE(coordinator_->record().jobs[0].infrastructure());
  EXPECT_NE(coordinator_->record().jobs[0].error().find("said nothing"), std::string::npos);
  coordinator_->Send(Lease("lease-1", {"ok 1"}));
  EXPECT_TRUE(coordinator_->WaitFor([](const Record& r) { return HasSample(r, 0); }));
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

TEST_F(AgentTest, WithoutARunnerTheSlotSaysSoAndTheAgentLives) {
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
