// The agent against a coordinator in this process and runners that misbehave on demand; the graders
// are the real ones.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "tests/testing/local_system.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/worker/agent/fake_coordinator.h"
#include "worker/agent/agent.h"

namespace assay::worker {

namespace fs = std::filesystem;
using testing::BinaryPath;
using testing::IsError;
using testing::TemporaryDirectory;
using Record = FakeCoordinator::Record;

inline constexpr absl::Duration kPatience = absl::Seconds(60);

class AgentHarness : public ::testing::Test {
 protected:
  AgentHarness() {
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

}  // namespace assay::worker
