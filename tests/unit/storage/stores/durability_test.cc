// What a crash or a full disk leaves: all of a transaction or nothing.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "storage/stores/check_sample.h"
#include "tests/unit/storage/stores/store_fixture.h"

namespace assay::storage {
namespace {

using absl::StatusCode;
using assay::testing::IsError;

class DurabilityTest : public StoreTest {
 protected:
  // Runs `work` in a child on a store of its own; returns the wait status.
  template <typename Work>
  int InChild(const Work& work) {
    store_.reset();  // one owner at a time
    const pid_t child = fork();
    if (child == 0) {
      auto store = ControlStore::Open(path_);
      if (!store.ok()) _exit(98);
      work(store->get());
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status;
  }
};

TEST_F(DurabilityTest, AKillWithinATransactionLeavesNothingOfIt) {
  const int status = InChild([&](ControlStore* store) {
    const auto grant_and_insert = [&](const std::string& lease_id, const UnitId& unit) {
      const auto epochs = store->GrantUnits(
          {.lease_id = lease_id, .cell_id = cell_, .worker_id = "w", .incarnation = "i"},
          provenance_, std::vector<UnitId>{unit});
      if (!epochs.ok()) _exit(97);
      if (!store->InsertSample(MakeSample(unit, lease_id, 1), 1).ok()) _exit(96);
    };
    if (!store->Begin().ok()) _exit(95);
    grant_and_insert("lease-kept", {cell_, 0, 0});
    if (!store->Commit().ok()) _exit(94);
    if (!store->Begin().ok()) _exit(93);
    grant_and_insert("lease-lost", {cell_, 0, 1});
    kill(getpid(), SIGKILL);
  });
  ASSERT_TRUE(WIFSIGNALED(status));

  Reopen();
  EXPECT_TRUE(store_->was_unclean());
  ASSERT_OK_AND_ASSIGN(const ControlSnapshot snapshot, store_->LoadAll());
  ASSERT_EQ(snapshot.cells[1].done.size(), 1u);
  EXPECT_EQ(snapshot.cells[1].done[0].repeat, 0);
  EXPECT_TRUE(snapshot.cells[1].open.empty());
  ASSERT_EQ(snapshot.open_leases.size(), 1u);
  EXPECT_EQ(snapshot.open_leases[0].lease_id, "lease-kept");
  ASSERT_OK_AND_ASSIGN(const int64_t num_samples, OpenReader()->NumSamples());
  EXPECT_EQ(num_samples, 1);
  Reopen();
  EXPECT_FALSE(store_->was_unclean());
}

// A limit on the size of files stands for a full disk: the write fails in the middle.
TEST_F(DurabilityTest, AFullDiskIsUnavailableAndTheDatabaseStaysWhole) {
  Finish({cell_, 0, 0}, Verdict::kCorrect);
  const int status = InChild([&](ControlStore* store) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {4 << 20, 4 << 20};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(97);
    if (!store->Begin().ok()) _exit(96);
    absl::Status status_of_write;
    for (int i = 0; i < 64 && status_of_write.ok(); ++i) {
      status_of_write =
          store->SetMeta("large" + std::to_string(i), std::string(size_t{1} << 20, 'x'));
    }
    if (status_of_write.ok()) status_of_write = store->Commit();
    if (status_of_write.code() != StatusCode::kUnavailable) _exit(95);
    if (Message(status_of_write).find(path_) == std::string::npos) _exit(94);
    store->Rollback();
    // Small things still work after that, in the same process.
    if (!store->Begin().ok()) _exit(93);
    if (!store->SetMeta("small", "1").ok()) _exit(92);
    if (!store->Commit().ok()) _exit(91);
  });
  ASSERT_TRUE(WIFEXITED(status));
  ASSERT_EQ(WEXITSTATUS(status), 0);

  Reopen();  // the child left without closing: quick_check runs
  EXPECT_TRUE(store_->was_unclean());
  ASSERT_OK_AND_ASSIGN(const std::string small, store_->GetMeta("small"));
  EXPECT_EQ(small, "1");
  ASSERT_OK_AND_ASSIGN(const std::string large, store_->GetMeta("large0"));
  EXPECT_EQ(large, "");
  ASSERT_OK_AND_ASSIGN(const int64_t num_samples, OpenReader()->NumSamples());
  EXPECT_EQ(num_samples, 1);
}

TEST_F(DurabilityTest, DamageIsFoundAfterAnUncleanEndAndSaysWhatToDo) {
  for (int repeat = 0; repeat < 2; ++repeat) Finish({cell_, 0, repeat}, Verdict::kCorrect);
  const int status = InChild([](ControlStore* store) {
    if (!store->CheckpointWhenIdle().ok()) _exit(97);
    kill(getpid(), SIGKILL);
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  FILE* const file = fopen(path_.c_str(), "r+b");
  ASSERT_NE(file, nullptr);
  // All pages but the first: the header stays, so that the file is still recognised.
  fseek(file, 0, SEEK_END);
  const long size = ftell(file);
  for (long offset = 8192; offset < size; offset += 512) {
    fseek(file, offset, SEEK_SET);
    fputs("damaged!", file);
  }
  fclose(file);
  EXPECT_THAT(ControlStore::Open(path_), IsError(StatusCode::kDataLoss, "restore a backup"));
}

TEST(CheckSampleTest, EachFieldOutOfItsLimitsIsNamed) {
  const SampleRecord good = {.unit = {1, 2, 3},
                             .lease_id = "lease",
                             .prompt_sha256 = std::string(32, 'x'),
                             .completion_tokens = 5,
                             .thinking_tokens = 5,
                             .finish_reason = 1};
  ASSERT_OK(CheckSample(good));
  const auto expect_bad = [&](const char* field, const auto& spoil) {
    SampleRecord bad = good;
    spoil(&bad);
    EXPECT_THAT(CheckSample(bad), IsError(StatusCode::kInvalidArgument, field));
    EXPECT_THAT(CheckSample(bad), IsError(StatusCode::kInvalidArgument, "item 2, repeat 3"));
  };
  expect_bad("text_zstd", [](SampleRecord* s) { s->text_zstd.resize((8 << 20) + 1); });
  expect_bad("token_ids_zstd", [](SampleRecord* s) { s->token_ids_zstd.resize((8 << 20) + 1); });
  expect_bad("prompt_sha256 has 3 bytes", [](SampleRecord* s) { s->prompt_sha256 = "abc"; });
  expect_bad("prompt_tokens is -1", [](SampleRecord* s) { s->prompt_tokens = -1; });
  expect_bad("completion_tokens", [](SampleRecord* s) { s->completion_tokens = -1; });
  expect_bad("thinking_tokens is 6", [](SampleRecord* s) { s->thinking_tokens = 6; });
  expect_bad("finish_reason is 0", [](SampleRecord* s) { s->finish_reason = 0; });
  expect_bad("finish_reason is 5", [](SampleRecord* s) { s->finish_reason = 5; });
  expect_bad("queue_us", [](SampleRecord* s) { s->queue_us = -1; });
  expect_bad("ttft_us", [](SampleRecord* s) { s->ttft_us = -1; });
  expect_bad("e2e_us", [](SampleRecord* s) { s->e2e_us = int64_t{1} << 62; });
  expect_bad("num_preemptions", [](SampleRecord* s) { s->num_preemptions = -1; });
  expect_bad("mean_batch_size", [](SampleRecord* s) { s->mean_batch_size = 0.0 / 0.0; });
  expect_bad("lease_id", [](SampleRecord* s) { s->lease_id.resize(201); });
  expect_bad("grade.verdict is 0", [](SampleRecord* s) { s->grade = GradeRecord{}; });
  expect_bad("grade.extracted", [](SampleRecord* s) {
    s->grade = GradeRecord{.verdict = 1, .extracted = std::string(70'000, 'x')};
  });
}

}  // namespace
}  // namespace assay::storage
