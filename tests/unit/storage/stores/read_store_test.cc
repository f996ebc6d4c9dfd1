#include "storage/stores/read_store.h"

#include "tests/unit/storage/stores/store_fixture.h"

namespace assay::storage {
namespace {

using absl::StatusCode;
using assay::testing::IsError;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ReadStoreTest : public StoreTest {
 protected:
  // bf16: items 0, 1 right twice, item 2 wrong and truncated.
  // rtn: item 0 right and wrong, item 1 no answer, item 2 right and ungradable.
  void FillBothCells() {
    Finish({baseline_, 0, 0}, Verdict::kCorrect, 10);
    Finish({baseline_, 0, 1}, Verdict::kCorrect, 20);
    Finish({baseline_, 1, 0}, Verdict::kCorrect, 10);
    Finish({baseline_, 1, 1}, Verdict::kCorrect, 10);
    Finish({baseline_, 2, 0}, Verdict::kWrong, 50, kFinishLength);
    Finish({baseline_, 2, 1}, Verdict::kWrong, 50, kFinishLength);
    Finish({cell_, 0, 0}, Verdict::kCorrect, 12);
    Finish({cell_, 0, 1}, Verdict::kWrong, 24);
    Finish({cell_, 1, 0}, Verdict::kNoAnswer, 50, kFinishContext);
    Finish({cell_, 2, 0}, Verdict::kCorrect, 30);
    Finish({cell_, 2, 1}, Verdict::kGraderError, 40);
  }
};

TEST_F(ReadStoreTest, AFileThatIsNotThereOrNotOursIsRefusedInWords) {
  EXPECT_THAT(ReadStore::Open(directory_ / "none.db"),
              IsError(StatusCode::kNotFound, "no such database"));
  EXPECT_THAT(ReadStore::Open(assay::testing::SourcePath("CMakeLists.txt")),
              IsError(StatusCode::kInvalidArgument, "not an Assay database"));
}

TEST_F(ReadStoreTest, SweepsAreListedNewestFirstInPages) {
  Do([&] {
    ASSERT_OK(store_->InsertSweep(MakeSweep("sweep-000000000002"), {}));
    ASSERT_OK(store_->InsertSweep(MakeSweep("sweep-0a0000000003"), {}));
  });
  const auto reader = OpenReader();
  ASSERT_OK_AND_ASSIGN(const auto first, reader->ListSweeps(2, 0));
  ASSERT_THAT(first, SizeIs(2));
  EXPECT_EQ(first[0].sweep_id, "sweep-0a0000000003");
  ASSERT_OK_AND_ASSIGN(const auto second, reader->ListSweeps(2, first[1].id));
  ASSERT_THAT(second, SizeIs(1));
  EXPECT_EQ(second[0].spec_yaml, "name: first");
}

TEST_F(ReadStoreTest, ASweepIsFoundByAnyUniqueBeginningOfItsId) {
  Do([&] { ASSERT_OK(store_->InsertSweep(MakeSweep("sweep-0a0000000003"), {})); });
  const auto reader = OpenReader();
  for (const char* id : {"sweep-0a0000000003", "sweep-0a", "0a", "0a0000000003"}) {
    ASSERT_OK_AND_ASSIGN(const SweepRecord sweep, reader->FindSweep(id));
    EXPECT_EQ(sweep.sweep_id, "sweep-0a0000000003") << id;
  }
  EXPECT_THAT(reader->FindSweep("sweep-0"),
              IsError(StatusCode::kInvalidArgument, "give more of the id"));
  EXPECT_THAT(reader->FindSweep(""), IsError(StatusCode::kInvalidArgument, "no sweep id"));
  EXPECT_THAT(reader->FindSweep("sweep-0a0000000004"),
              IsError(StatusCode::kNotFound, "did you mean 'sweep-0a0000000003'?"));
}

TEST_F(ReadStoreTest, CountsOfACellAreThoseWorkedByHand) {
  FillBothCells();
  Do([&] { Grant("lease-open", {{cell_, 1, 1}}); });
  const auto reader = OpenReader();
  ASSERT_OK_AND_ASSIGN(const auto cells, reader->SweepCells(sweep_));
  ASSERT_THAT(cells, SizeIs(2));
  EXPECT_EQ(cells[0].num_units(), 6);
  EXPECT_EQ(cells[0].cell.counts.num_done, 6);
  EXPECT_EQ(cells[0].cell.counts.num_correct, 4);
  EXPECT_EQ(cells[0].cell.counts.num_truncated, 2);
  EXPECT_EQ(cells[0].cell.counts.completion_tokens, 150);
  const CellSummary& rtn = cells[1].cell;
  EXPECT_EQ(rtn.cell.method.label, "rtn");
  EXPECT_EQ(rtn.benchmark.name, "arith");
  EXPECT_EQ(rtn.artifact->key, std::string(64, 'a'));
  EXPECT_EQ(rtn.counts.num_done, 5);
  EXPECT_EQ(rtn.counts.num_leased, 1);
  EXPECT_EQ(rtn.counts.num_graded, 4);
  EXPECT_EQ(rtn.counts.num_correct, 2);
  EXPECT_EQ(rtn.counts.num_ungradable, 1);
  EXPECT_EQ(rtn.counts.num_truncated, 1);
  EXPECT_THAT(reader->GetCell(99), IsError(StatusCode::kNotFound, "cell 99"));
}

TEST_F(ReadStoreTest, CellsCanBeListedWithoutCountingTheirUnits) {
  FillBothCells();
  const auto reader = OpenReader();
  ASSERT_OK_AND_ASSIGN(const auto counted, reader->SweepCells(sweep_));
  ASSERT_OK_AND_ASSIGN(const auto cells, reader->SweepCells(sweep_, /*with_counts=*/false));
  ASSERT_EQ(cells.size(), counted.size());
  EXPECT_GT(counted[0].cell.counts.num_done, 0);
  EXPECT_EQ(cells[0].cell.counts.num_done, 0);
  EXPECT_EQ(cells[0].cell.model.name, counted[0].cell.model.name);
  EXPECT_EQ(cells[0].cell.benchmark.name, counted[0].cell.benchmark.name);
}

TEST_F(ReadStoreTest, ASweepThatWantsLessCountsLess) {
  FillBothCells();
  int64_t small = 0;
  Do([&] {
    ASSERT_OK_AND_ASSIGN(
        const auto sweep,
        store_->InsertSweep(
            MakeSweep("sweep-000000000002"),
            std::vector<SweepCellRecord>{{.cell_id = cell_, .num_repeats = 1, .num_items = 2}}));
    small = sweep.id;
  });
  const auto reader = OpenReader();
  ASSERT_OK_AND_ASSIGN(const auto cells, reader->SweepCells(small));
  EXPECT_EQ(cells[0].num_units(), 2);
  EXPECT_EQ(cells[0].cell.counts.num_done, 2);
  ASSERT_OK_AND_ASSIGN(const auto outcomes, reader->Outcomes(cell_, 2, 1));
  EXPECT_THAT(outcomes, SizeIs(2));
  ASSERT_OK_AND_ASSIGN(const int64_t cached, reader->NumCachedUnits("key-rtn", 2, 1));
  EXPECT_EQ(cached, 2);
  ASSERT_OK_AND_ASSIGN(const int64_t none, reader->NumCachedUnits("no-such-key", 2, 1));
  EXPECT_EQ(none, 0);
}

TEST_F(ReadStoreTest, OutcomesComeInItemAndRepeatOrder) {
  FillBothCells();
  ASSERT_OK_AND_ASSIGN(const auto outcomes, OpenReader()->Outcomes(cell_));
  ASSERT_THAT(outcomes, SizeIs(5));
  EXPECT_EQ(outcomes[1].item_index, 0);
  EXPECT_EQ(outcomes[1].repeat, 1);
  EXPECT_EQ(outcomes[1].verdict, Verdict::kWrong);
  EXPECT_EQ(outcomes[1].completion_tokens, 24);
  EXPECT_TRUE(outcomes[2].truncated);
  EXPECT_EQ(outcomes[4].verdict, Verdict::kGraderError);
}

TEST_F(ReadStoreTest, ExpectedLengthsAreMeansOverTheBaselinesRepeats) {
  FillBothCells();
  const auto reader = OpenReader();
  ASSERT_OK_AND_ASSIGN(const auto means,
                       reader->MeanBaselineTokens("model-hash", "benchmark-hash"));
  EXPECT_THAT(means, ElementsAre(15, 10, 50));
  ASSERT_OK_AND_ASSIGN(const auto unknown, reader->MeanBaselineTokens("other", "benchmark-hash"));
  EXPECT_THAT(unknown, IsEmpty());
  ASSERT_OK_AND_ASSIGN(const auto same, store_->MeanBaselineTokens("model-hash", "benchmark-hash"));
  EXPECT_EQ(same, means);
}

TEST_F(ReadStoreTest, PagesOfSamplesJoinToTheWholeList) {
  FillBothCells();
  const auto reader = OpenReader();
  std::vector<UnitId> units;
  SampleQuery query = {.sweep_row_id = sweep_, .limit = 3};
  while (true) {
    ASSERT_OK_AND_ASSIGN(const SamplePage page, reader->ListSamples(query));
    for (const SampleSummary& sample : page.samples) units.push_back(sample.unit);
    if (page.next_page_token.empty()) break;
    EXPECT_THAT(page.samples, SizeIs(3));
    query.page_token = page.next_page_token;
  }
  EXPECT_THAT(units, SizeIs(11));
  EXPECT_TRUE(std::ranges::is_sorted(units));
}

TEST_F(ReadStoreTest, FiltersOfSamplesSelect) {
  FillBothCells();
  const auto reader = OpenReader();
  const auto count = [&](SampleFilter filter, const std::string& item = {}) -> size_t {
    auto page = reader->ListSamples({.cell_id = cell_, .item = item, .filter = filter});
    EXPECT_OK(page);
    return page.ok() ? page->samples.size() : 999;
  };
  EXPECT_EQ(count(SampleFilter::kAll), 5u);
  EXPECT_EQ(count(SampleFilter::kCorrect), 2u);
  EXPECT_EQ(count(SampleFilter::kWrong), 2u);
  EXPECT_EQ(count(SampleFilter::kTruncated), 1u);
  EXPECT_EQ(count(SampleFilter::kUngradable), 1u);
  EXPECT_EQ(count(SampleFilter::kAll, "item-0"), 2u);
  EXPECT_EQ(count(SampleFilter::kAll, "item-9"), 0u);
  EXPECT_THAT(reader->ListSamples({.cell_id = 99}), IsError(StatusCode::kNotFound, "cell 99"));
  for (const char* token : {"x", "1.2", "1.2.3.4", "1.2.", "..", "1.2.3 "}) {
    EXPECT_THAT(reader->ListSamples({.cell_id = cell_, .page_token = token}),
                IsError(StatusCode::kInvalidArgument, "page token"))
        << token;
  }
}

TEST_F(ReadStoreTest, ASampleComesBackWithAllThatIsKnownOfIt) {
  const int64_t sample_id = Finish({cell_, 2, 1}, Verdict::kCorrect);
  const auto reader = OpenReader();
  ASSERT_OK_AND_ASSIGN(const int64_t found, reader->FindSample(cell_, 2, 1));
  EXPECT_EQ(found, sample_id);
  EXPECT_THAT(reader->FindSample(cell_, 2, 0), IsError(StatusCode::kNotFound, "item 2, repeat 0"));
  ASSERT_OK_AND_ASSIGN(const SampleDetail sample, reader->GetSample(sample_id));
  EXPECT_EQ(sample.text, "the answer is \\boxed{4}");
  EXPECT_THAT(sample.token_ids, ElementsAre(5, 6, 7));
  EXPECT_EQ(sample.record.seed, 0xfedcba9876543210);
  EXPECT_EQ(sample.record.prompt_sha256, std::string(32, '\x01'));
  EXPECT_EQ(sample.record.worker_id, "worker");
  EXPECT_EQ(sample.record.incarnation, "inc-1");
  EXPECT_EQ(sample.record.mean_batch_size, 2.5);
  EXPECT_EQ(sample.provenance.git_commit, "abc");
  EXPECT_EQ(sample.item.gold, "20");
  EXPECT_EQ(sample.item.question, "question 2");
  EXPECT_EQ(sample.summary.model, "tiny");
  EXPECT_EQ(sample.summary.level, "2");
  ASSERT_TRUE(sample.summary.grade.has_value());
  EXPECT_EQ(sample.summary.grade->extracted, "4");
  EXPECT_THAT(reader->GetSample(99), IsError(StatusCode::kNotFound, "no sample 99"));
}

TEST_F(ReadStoreTest, TheNewestGradeCountsAndTheOthersStay) {
  const int64_t sample_id = Finish({cell_, 0, 0}, Verdict::kWrong);
  Do([&] {
    ASSERT_OK(store_->InsertGrade(
        sample_id, {.grader = "math_verify", .grader_version = "2", .verdict = 1}, 2000));
    EXPECT_THAT(store_->InsertGrade(99, {.grader = "g", .verdict = 1}, 2000),
                IsError(StatusCode::kNotFound, "sample 99"));
  });
  const auto reader = OpenReader();
  ASSERT_OK_AND_ASSIGN(SampleDetail sample, reader->GetSample(sample_id));
  ASSERT_THAT(sample.grades, SizeIs(2));
  EXPECT_EQ(sample.grades[0].grader, "math_verify");
  ASSERT_OK_AND_ASSIGN(auto outcomes, reader->Outcomes(cell_));
  EXPECT_EQ(outcomes[0].verdict, Verdict::kCorrect);
  // The same grader again replaces its grade and is the newest then.
  Do([&] {
    ASSERT_OK(store_->InsertGrade(
        sample_id, {.grader = "boxed_number", .grader_version = "1", .verdict = 3}, 3000));
  });
  ASSERT_OK_AND_ASSIGN(outcomes, reader->Outcomes(cell_));
  EXPECT_EQ(outcomes[0].verdict, Verdict::kNoAnswer);
  ASSERT_OK_AND_ASSIGN(sample, reader->GetSample(sample_id));
  EXPECT_THAT(sample.grades, SizeIs(2));
}

TEST_F(ReadStoreTest, EventsFollowAnIdAndMayBeOfOneSweep) {
  Do([&] {
    for (int i = 0; i < 4; ++i) {
      ASSERT_OK_AND_ASSIGN(const int64_t id,
                           store_->InsertEvent({.time_us = i,
                                                .kind = "lease_expired",
                                                .sweep_id = i % 2 == 0 ? "sweep-000000000001" : "",
                                                .cell_id = i == 2 ? cell_ : 0,
                                                .worker_id = "worker",
                                                .detail_json = "{}"}));
      EXPECT_EQ(id, i + 1);
    }
  });
  const auto reader = OpenReader();
  ASSERT_OK_AND_ASSIGN(const int64_t last, reader->LastEventId());
  EXPECT_EQ(last, 4);
  ASSERT_OK_AND_ASSIGN(const auto all, reader->Events(1, "", 2));
  ASSERT_THAT(all, SizeIs(2));
  EXPECT_EQ(all[0].id, 2);
  ASSERT_OK_AND_ASSIGN(const auto of_sweep, reader->Events(0, "sweep-000000000001", 10));
  ASSERT_THAT(of_sweep, SizeIs(2));
  EXPECT_EQ(of_sweep[1].cell_id, cell_);
}

TEST_F(ReadStoreTest, ASnapshotDoesNotSeeWhatIsCommittedAfterIt) {
  Finish({cell_, 0, 0}, Verdict::kCorrect);
  const auto reader = OpenReader();
  {
    ASSERT_OK_AND_ASSIGN(const ReadStore::Snapshot snapshot, reader->TakeSnapshot());
    ASSERT_OK_AND_ASSIGN(const int64_t before, reader->NumSamples());
    Finish({cell_, 0, 1}, Verdict::kCorrect);
    ASSERT_OK_AND_ASSIGN(const int64_t within, reader->NumSamples());
    EXPECT_EQ(before, within);
    ASSERT_OK(reader->SweepCells(sweep_));
  }
  ASSERT_OK_AND_ASSIGN(const int64_t after, reader->NumSamples());
  EXPECT_EQ(after, 2);
}

TEST_F(ReadStoreTest, WorkersAndTheFilesSizeAreTold) {
  Do([&] {
    ASSERT_OK(store_->UpsertWorker({.worker_id = "worker",
                                    .incarnation = "inc-1",
                                    .version = "0.1.0",
                                    .first_seen_time_us = 5,
                                    .last_seen_time_us = 5}));
    ASSERT_OK(store_->UpsertWorker({.worker_id = "worker",
                                    .incarnation = "inc-2",
                                    .version = "0.2.0",
                                    .provenance_id = provenance_,
                                    .first_seen_time_us = 9,
                                    .last_seen_time_us = 9}));
  });
  const auto reader = OpenReader();
  ASSERT_OK_AND_ASSIGN(const auto workers, reader->Workers());
  ASSERT_THAT(workers, SizeIs(1));
  EXPECT_EQ(workers[0].incarnation, "inc-2");
  EXPECT_EQ(workers[0].first_seen_time_us, 5);
  EXPECT_EQ(workers[0].last_seen_time_us, 9);
  ASSERT_OK_AND_ASSIGN(const int64_t num_bytes, reader->DatabaseBytes());
  EXPECT_GT(num_bytes, 0);
  ASSERT_OK_AND_ASSIGN(const std::string absent, reader->GetMeta("nothing"));
  EXPECT_EQ(absent, "");
  ASSERT_OK_AND_ASSIGN(const auto benchmark, reader->FindBenchmark("benchmark-hash"));
  EXPECT_EQ(benchmark->num_items, kNumItems);
  ASSERT_OK_AND_ASSIGN(const auto items, reader->Items(benchmark_));
  EXPECT_EQ(items[1].name, "item-1");
  EXPECT_EQ(items[1].question, "");
  ASSERT_OK_AND_ASSIGN(const auto artifact, reader->FindArtifact("none"));
  EXPECT_FALSE(artifact.has_value());
}

}  // namespace
}  // namespace assay::storage
