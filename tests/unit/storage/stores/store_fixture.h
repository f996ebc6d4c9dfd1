// A database with one sweep of two cells of one small benchmark, for the tests of both stores.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "storage/stores/control_store.h"
#include "storage/stores/read_store.h"
#include "storage/stores/results.h"
#include "storage/text/text_codec.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::storage {

class StoreTest : public ::testing::Test {
 protected:
  static constexpr int32_t kNumItems = 3;
  static constexpr int32_t kNumRepeats = 2;

  void SetUp() override {
    Reopen();
    ASSERT_OK(store_->Begin());
    WritePlan();
    ASSERT_OK(store_->Commit());
  }

  void Reopen() {
    store_.reset();
    ASSERT_OK_AND_ASSIGN(store_, ControlStore::Open(path_));
  }

  std::unique_ptr<ReadStore> OpenReader() {
    absl::StatusOr<std::unique_ptr<ReadStore>> reader = ReadStore::Open(path_);
    EXPECT_OK(reader);
    return reader.ok() ? *std::move(reader) : nullptr;
  }

  // One transaction around `work`, committed.
  template <typename Work>
  void Do(const Work& work) {
    ASSERT_OK(store_->Begin());
    work();
    ASSERT_OK(store_->Commit());
  }

  static std::vector<ItemRecord> MakeItems() {
    std::vector<ItemRecord> items;
    for (int32_t i = 0; i < kNumItems; ++i) {
      items.push_back({.item_index = i,
                       .name = "item-" + std::to_string(i),
                       .question = "question " + std::to_string(i),
                       .user_text = "please: question " + std::to_string(i),
                       .gold = std::to_string(10 * i),
                       .level = i < 2 ? "1" : "2"});
    }
    return items;
  }

  SweepRecord MakeSweep(const std::string& sweep_id) {
    return {.sweep_id = sweep_id,
            .name = "first",
            .owner = "lena",
            .created_time_us = 1,
            .spec_yaml = "name: first",
            .resolved_yaml = "name: first\n",
            .request_id = "request-of-" + sweep_id};
  }

  std::vector<SweepCellRecord> MakePlaces() {
    return {{.position = 0, .cell_id = baseline_, .num_repeats = 2, .num_items = kNumItems},
            {.position = 1,
             .cell_id = cell_,
             .num_repeats = 2,
             .num_items = kNumItems,
             .baseline_cell_id = baseline_}};
  }

  void WritePlan() {
    ASSERT_OK_AND_ASSIGN(const int64_t model,
                         store_->UpsertModel({.name = "tiny", .content_hash = "model-hash"}));
    ASSERT_OK_AND_ASSIGN(benchmark_, store_->UpsertBenchmark({.name = "arith",
                                                              .version_hash = "benchmark-hash",
                                                              .prompt_version = "1",
                                                              .grader = "boxed_number",
                                                              .num_items = kNumItems},
                                                             MakeItems()));
    const MethodRecord bf16 = {.method = "bf16", .bits = "16-16-16", .label = "bf16"};
    const MethodRecord rtn = {
        .method = "rtn", .bits = "3-16-16", .group_size = 128, .label = "rtn"};
    ASSERT_OK_AND_ASSIGN(
        artifact_,
        store_->UpsertArtifact({.key = std::string(64, 'a'), .model_id = model, .method = rtn}));
    CellRecord cell = {.key = "key-bf16",
                       .model_id = model,
                       .benchmark_id = benchmark_,
                       .method = bf16,
                       .engine_numerics_version = "cpu-1"};
    cell.sampling.max_tokens = 512;
    ASSERT_OK_AND_ASSIGN(baseline_, store_->UpsertCell(cell));
    cell.key = "key-rtn";
    cell.artifact_id = artifact_;
    cell.method = rtn;
    ASSERT_OK_AND_ASSIGN(cell_, store_->UpsertCell(cell));
    ASSERT_OK_AND_ASSIGN(provenance_, store_->UpsertProvenance({.git_commit = "abc",
                                                                .assay_version = "0.1.0",
                                                                .hostname = "box",
                                                                .device = "cpu",
                                                                .backend = "cpu"}));
    ASSERT_OK_AND_ASSIGN(const ControlStore::InsertedSweep sweep,
                         store_->InsertSweep(MakeSweep("sweep-000000000001"), MakePlaces()));
    EXPECT_TRUE(sweep.created);
    sweep_ = sweep.id;
  }

  // Grants the units under a new lease, within the open transaction; returns their epochs.
  std::vector<int64_t> Grant(const std::string& lease_id, const std::vector<UnitId>& units,
                             const std::string& incarnation = "inc-1") {
    absl::StatusOr<std::vector<int64_t>> epochs =
        store_->GrantUnits({.lease_id = lease_id,
                            .cell_id = units.at(0).cell_id,
                            .worker_id = "worker",
                            .incarnation = incarnation,
                            .granted_time_us = 10},
                           provenance_, units);
    EXPECT_OK(epochs);
    return epochs.ok() ? *epochs : std::vector<int64_t>(units.size());
  }

  static SampleRecord MakeSample(const UnitId& unit, const std::string& lease_id, int64_t epoch,
                                 Verdict verdict = Verdict::kCorrect, int64_t num_tokens = 7,
                                 int32_t finish_reason = 1) {
    SampleRecord sample = {.unit = unit,
                           .lease_id = lease_id,
                           .epoch = epoch,
                           .text_zstd = CompressText("the answer is \\boxed{4}"),
                           .token_ids_zstd = CompressTokenIds(std::vector<int32_t>{5, 6, 7}),
                           .prompt_sha256 = std::string(32, '\x01'),
                           .prompt_tokens = 11,
                           .completion_tokens = num_tokens,
                           .thinking_tokens = 3,
                           .finish_reason = finish_reason,
                           .seed = 0xfedcba9876543210,
                           .queue_us = 1,
                           .ttft_us = 100,
                           .e2e_us = 700,
                           .mean_batch_size = 2.5,
                           .num_preemptions = 1,
                           .finished_time_us = 99};
    if (verdict != Verdict::kNone) {
      sample.grade = GradeRecord{.grader = "boxed_number",
                                 .grader_version = "1",
                                 .verdict = static_cast<int32_t>(verdict),
                                 .extracted = "4",
                                 .duration_us = 12};
    }
    return sample;
  }

  ControlStore::InsertedSample Insert(const SampleRecord& sample, int64_t time_us = 1000) {
    absl::StatusOr<ControlStore::InsertedSample> inserted = store_->InsertSample(sample, time_us);
    EXPECT_OK(inserted);
    return inserted.ok() ? *inserted : ControlStore::InsertedSample();
  }

  // Grants a unit and stores its sample, in a transaction of its own; returns the sample's id.
  int64_t Finish(const UnitId& unit, Verdict verdict, int64_t num_tokens = 7,
                 int32_t finish_reason = 1) {
    int64_t sample_id = 0;
    Do([&] {
      const std::string lease_id = "lease-" + std::to_string(++num_leases_);
      const int64_t epoch = Grant(lease_id, {unit})[0];
      const auto inserted =
          Insert(MakeSample(unit, lease_id, epoch, verdict, num_tokens, finish_reason));
      EXPECT_EQ(inserted.outcome, InsertOutcome::kAccepted);
      sample_id = inserted.sample_id;
      EXPECT_OK(store_->EndLease(lease_id, "completed", AttemptEnd::kReturned, 1000));
    });
    return sample_id;
  }

  assay::testing::TemporaryDirectory directory_;
  const std::string path_ = directory_ / "assay.db";
  std::unique_ptr<ControlStore> store_;
  int64_t benchmark_ = 0;
  int64_t artifact_ = 0;
  int64_t baseline_ = 0;
  int64_t cell_ = 0;
  int64_t provenance_ = 0;
  int64_t sweep_ = 0;
  int num_leases_ = 0;
};

}  // namespace assay::storage
