// A control plane on a real database in a temporary folder, with a clock and ids of the test's.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "coordinator/control/control_plane.h"
#include "storage/stores/read_store.h"
#include "storage/text/text_codec.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::coordinator::testing {

// One model on one benchmark of `num_items` items; cell 0 is bf16, each further one a method with
// an artifact of its own.
inline PlannedSweep MakePlan(int num_cells, int num_items, int num_repeats = 1,
                             const std::string& name = "test") {
  PlannedSweep plan;
  plan.name = name;
  plan.resolved_yaml = "name: " + name + "\n";
  storage::ModelRecord model;
  model.name = "tiny";
  model.content_hash = Sha256Hex("tiny");
  plan.models.push_back(model);
  PlannedBenchmark benchmark;
  benchmark.benchmark.name = "arith";
  benchmark.benchmark.version_hash = Sha256Hex("arith" + std::to_string(num_items));
  benchmark.benchmark.prompt_version = "p1";
  benchmark.benchmark.grader = "boxed_number";
  benchmark.benchmark.num_items = num_items;
  for (int i = 0; i < num_items; ++i) {
    storage::ItemRecord item;
    item.item_index = i;
    item.name = "item-" + std::to_string(i);
    item.question = "How much is " + std::to_string(i) + " + 1?";
    item.user_text = item.question + " Box it.";
    item.gold = std::to_string(i + 1);
    item.level = std::to_string(i % 5 + 1);
    benchmark.items.push_back(item);
  }
  plan.benchmarks.push_back(benchmark);
  for (int i = 0; i < num_cells; ++i) {
    PlannedCell planned;
    storage::CellRecord& cell = planned.cell;
    cell.method.method = i == 0 ? "bf16" : "rtn";
    cell.method.bits = i == 0 ? "16-16-16" : std::to_string(8 - i) + "-16-16";
    cell.method.group_size = i == 0 ? 0 : 128;
    cell.method.parameters_json = "{}";
    cell.method.label = cell.method.method;
    cell.sampling.max_tokens = 512;
    cell.engine_numerics_version = "cpu-1";
    cell.key = Sha256Hex("cell " + std::to_string(i) + " " + std::to_string(num_items));
    planned.num_items = num_items;
    planned.num_repeats = num_repeats;
    planned.expected_tokens = int64_t{100} * num_items * num_repeats;
    if (i > 0) {
      storage::ArtifactRecord artifact;
      artifact.key = Sha256Hex("artifact " + std::to_string(i));
      artifact.method = cell.method;
      planned.artifact_index = static_cast<int>(plan.artifacts.size());
      planned.baseline_index = 0;
      plan.artifacts.push_back(artifact);
      plan.calibration_jsonl.emplace_back();
    }
    plan.cells.push_back(planned);
  }
  return plan;
}

class ControlHarness {
 public:
  ControlHarness() { Open(); }

  void Open() {
    auto store = storage::ControlStore::Open(database());
    ASSERT_OK(store);
    store_ = *std::move(store);
    ControlPlane::Options options;
    options.make_id = [this](const std::string& prefix) {
      return prefix + "-" + std::to_string(++num_ids_);
    };
    auto plane = ControlPlane::Open(store_.get(), &clock_, options);
    ASSERT_OK(plane);
    plane_ = *std::move(plane);
  }
  // As after a SIGKILL: nothing of the memory is left.
  void Crash() {
    plane_.reset();
    store_.reset();
    messages_.clear();
    Open();
  }

  // One batch; its messages are kept when it commits.
  template <typename Work>
  absl::Status Batch(Work&& work) {
    const absl::Status begun = plane_->BeginBatch();
    if (!begun.ok()) return begun;
    work(*plane_);
    const absl::Status committed = plane_->CommitBatch();
    for (OutgoingMessage& message : plane_->TakeMessages()) {
      messages_.push_back(std::move(message));
    }
    EXPECT_EQ(plane_->scheduler().CheckInvariants(), "");
    return committed;
  }

  // The row id.
  int64_t Submit(PlannedSweep plan, const std::string& request_id = "") {
    storage::ControlStore::InsertedSweep inserted;
    EXPECT_OK(Batch([&](ControlPlane& plane) {
      auto result = plane.HandleSubmit({std::move(plan), request_id, "ada", "spec"});
      EXPECT_OK(result);
      if (result.ok()) inserted = *result;
    }));
    return inserted.id;
  }
  void Hello(const std::string& worker, const std::string& incarnation, int num_slots = 1) {
    HelloCommand command;
    command.hello.worker_id = worker;
    command.hello.incarnation = incarnation;
    command.hello.version = "0.1.0";
    for (int i = 0; i < num_slots; ++i) command.hello.slots.push_back({.index = i});
    command.provenance.hostname = worker;
    EXPECT_OK(Batch([&](ControlPlane& plane) { EXPECT_OK(plane.HandleHello(command)); }));
  }
  HeartbeatCommand MakeHeartbeat(const std::string& worker, const std::string& incarnation,
                                 int num_slots = 1) const {
    HeartbeatCommand command;
    command.heartbeat.worker_id = worker;
    command.heartbeat.incarnation = incarnation;
    for (int i = 0; i < num_slots; ++i) {
      SlotStatus slot;
      slot.index = i;
      slot.phase = SlotPhase::kRunning;
      slot.num_free_lanes = 64;
      command.heartbeat.slots.push_back(slot);
    }
    for (const auto& [number, lease] : plane_->scheduler().leases()) {
      if (lease.worker_id == worker) command.heartbeat.leases.push_back({lease.lease_id, 0});
    }
    return command;
  }
  void Beat(const HeartbeatCommand& command) {
    EXPECT_OK(Batch([&](ControlPlane& plane) { EXPECT_OK(plane.HandleHeartbeat(command)); }));
  }
  void Join(const std::string& worker, const std::string& incarnation, int num_slots = 1) {
    Hello(worker, incarnation, num_slots);
    Beat(MakeHeartbeat(worker, incarnation, num_slots));
  }
  void Tick() {
    EXPECT_OK(Batch([](ControlPlane& plane) { EXPECT_OK(plane.HandleTick()); }));
  }

  static storage::SampleRecord MakeSample(const GrantMessage& grant, const UnitGrant& unit) {
    storage::SampleRecord sample;
    sample.unit = unit.unit;
    sample.lease_id = grant.lease_id;
    sample.epoch = unit.epoch;
    sample.seed = unit.seed;
    sample.text_zstd = storage::CompressText("\\boxed{" + unit.gold + "}");
    sample.token_ids_zstd = storage::CompressTokenIds(std::vector<int32_t>{1, 2, 3});
    sample.prompt_sha256 = std::string(32, 'p');
    sample.prompt_tokens = 20;
    sample.completion_tokens = 100;
    sample.finish_reason = 1;
    sample.e2e_us = 1000;
    sample.finished_time_us = 1;
    sample.grade = storage::GradeRecord{"boxed_number", "1", 1, unit.gold, "", 5};
    return sample;
  }
  absl::StatusOr<std::vector<storage::InsertOutcome>> Report(
      std::vector<storage::SampleRecord> samples, const std::string& worker = "w1",
      const std::string& incarnation = "a") {
    // A sample is its reporter's, as the API makes it.
    for (storage::SampleRecord& sample : samples) {
      sample.worker_id = worker;
      sample.incarnation = incarnation;
    }
    absl::StatusOr<std::vector<storage::InsertOutcome>> outcomes;
    const absl::Status committed = Batch([&](ControlPlane& plane) {
      outcomes = plane.HandleReport({worker, incarnation, std::move(samples)});
    });
    if (!committed.ok()) return committed;
    return outcomes;
  }
  void FinishLease(const GrantMessage& grant) {
    std::vector<storage::SampleRecord> samples;
    for (const UnitGrant& unit : grant.units) samples.push_back(MakeSample(grant, unit));
    EXPECT_OK(Report(std::move(samples)));
  }
  // Plays a worker that answers everything at once, until nothing more is granted.
  void RunAll() {
    while (true) {
      const std::vector<OutgoingMessage> batch = std::exchange(messages_, {});
      bool worked = false;
      for (const OutgoingMessage& message : batch) {
        if (const auto* grant = std::get_if<GrantMessage>(&message.body)) {
          FinishLease(*grant);
          worked = true;
        } else if (const auto* job = std::get_if<JobMessage>(&message.body)) {
          if (answered_jobs_.contains({job->job_id, job->epoch})) continue;
          EXPECT_OK(CompleteJob(*job, ""));
          worked = true;
        }
      }
      if (!worked) return;
    }
  }
  absl::Status CompleteJob(const JobMessage& job, const std::string& error,
                           bool infrastructure = false) {
    absl::Status outcome;
    answered_jobs_.insert({job.job_id, job.epoch});
    JobReport report;
    report.worker_id = "w1";
    report.incarnation = "a";
    report.job_id = job.job_id;
    report.epoch = job.epoch;
    report.error = error;
    report.infrastructure = infrastructure;
    report.artifact_key = job.cell->artifact->key;
    report.manifest_sha256 = std::string(64, 'm');
    EXPECT_OK(Batch([&](ControlPlane& plane) { outcome = plane.HandleJobReport(report); }));
    return outcome;
  }

  template <typename T>
  std::vector<T> Messages() const {
    std::vector<T> found;
    for (const OutgoingMessage& message : messages_) {
      if (const T* body = std::get_if<T>(&message.body)) found.push_back(*body);
    }
    return found;
  }
  void ClearMessages() { messages_.clear(); }

  storage::SweepState StateOf(int64_t row_id) {
    const auto data = store_->LoadSweep(row_id);
    EXPECT_OK(data);
    return data.ok() ? data->sweep.state : storage::SweepState::kCancelled;
  }
  std::vector<std::string> EventKinds() const {
    std::vector<std::string> kinds;
    const auto store = storage::ReadStore::Open(database());
    EXPECT_OK(store);
    const auto events = (*store)->Events(0, "", 10000);
    EXPECT_OK(events);
    for (const storage::EventRecord& event : *events) kinds.push_back(event.kind);
    return kinds;
  }
  int64_t NumSamples() const {
    const auto store = storage::ReadStore::Open(database());
    EXPECT_OK(store);
    return (*store)->NumSamples().value_or(-1);
  }

  std::string database() const { return directory_ / "assay.db"; }
  ControlPlane& plane() { return *plane_; }
  storage::ControlStore& store() { return *store_; }
  assay::testing::FakeClock& clock() { return clock_; }

 private:
  assay::testing::TemporaryDirectory directory_;
  assay::testing::FakeClock clock_;
  int num_ids_ = 0;
  std::unique_ptr<storage::ControlStore> store_;
  std::unique_ptr<ControlPlane> plane_;
  std::vector<OutgoingMessage> messages_;
  std::set<std::pair<int64_t, int64_t>> answered_jobs_;  // job, epoch
};

}  // namespace assay::coordinator::testing
