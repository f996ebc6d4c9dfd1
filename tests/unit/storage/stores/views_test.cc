// The views against numbers worked by hand, read as an analyst reads them.
#include <fmt/format.h>

#include "storage/sqlite/query_runner.h"
#include "tests/unit/storage/stores/store_fixture.h"

namespace assay::storage {
namespace {

using ::testing::ElementsAre;

class ViewsTest : public StoreTest {
 protected:
  // As in read_store_test.cc, with a repeat that has no partner, an open unit and failed attempts.
  //            bf16            rtn
  // item-0.0   right 10        right 12
  // item-0.1   right 20        wrong 24        a harmful flip
  // item-1.0   right 10        no answer 50    a harmful flip; cut
  // item-1.1   right 10        -
  // item-2.0   wrong 50 cut    right 30        a beneficial flip
  // item-2.1   wrong 50 cut    ungradable 40
  void SetUp() override {
    StoreTest::SetUp();
    Finish({baseline_, 0, 0}, Verdict::kCorrect, 10);
    Finish({baseline_, 0, 1}, Verdict::kCorrect, 20);
    Finish({baseline_, 1, 0}, Verdict::kCorrect, 10);
    Finish({baseline_, 1, 1}, Verdict::kCorrect, 10);
    Finish({baseline_, 2, 0}, Verdict::kWrong, 50, kFinishLength);
    Finish({baseline_, 2, 1}, Verdict::kWrong, 50, kFinishLength);
    Finish({cell_, 0, 0}, Verdict::kCorrect, 12);
    Do([&] {
      Grant("lease-expired", {{cell_, 0, 1}});
      ASSERT_OK(store_->EndLease("lease-expired", "silent", AttemptEnd::kExpired, 20));
    });
    Finish({cell_, 0, 1}, Verdict::kWrong, 24);
    Finish({cell_, 1, 0}, Verdict::kNoAnswer, 50, kFinishContext);
    Finish({cell_, 2, 0}, Verdict::kCorrect, 30);
    Finish({cell_, 2, 1}, Verdict::kGraderError, 40);
    Do([&] {
      Grant("lease-broken", {{cell_, 1, 1}});
      ASSERT_OK(store_->RecordUnitFailure("lease-broken", {cell_, 1, 1}, 1, "killed", false, 20));
      Grant("lease-open", {{cell_, 1, 1}});
    });
  }

  // Each row as its values joined by spaces; NULL is "-".
  std::vector<std::string> Query(const std::string& sql) {
    auto runner = sqlite::QueryRunner::Open(path_);
    EXPECT_OK(runner);
    std::vector<std::string> rows;
    const auto on_row = [&](const std::vector<sqlite::QueryValue>& values) {
      std::string& row = rows.emplace_back();
      for (const sqlite::QueryValue& value : values) {
        if (!row.empty()) row += ' ';
        if (const auto* integer = std::get_if<int64_t>(&value)) row += std::to_string(*integer);
        if (const auto* real = std::get_if<double>(&value)) row += fmt::format("{:.4g}", *real);
        if (const auto* text = std::get_if<std::string>(&value)) row += *text;
        if (std::holds_alternative<std::monostate>(value)) row += '-';
      }
      return true;
    };
    EXPECT_OK((*runner)->Run(
        sql, {}, [](const std::vector<std::string>&) { return true; }, on_row));
    return rows;
  }
};

TEST_F(ViewsTest, CellsHaveTheirCountsAndRates) {
  EXPECT_THAT(
      Query("SELECT model, method, bits, benchmark, num_samples, num_graded, num_correct, accuracy,"
            " num_no_answer, num_ungradable, num_truncated, completion_tokens,"
            " mean_completion_tokens FROM v_cell ORDER BY cell_id"),
      ElementsAre("tiny bf16 16-16-16 arith 6 6 4 0.6667 0 0 2 150 25",
                  "tiny rtn 3-16-16 arith 5 4 2 0.5 1 1 1 156 31.2"));
}

// One of the five came after a lease had expired. A unit that is granted again and has no sample
// yet is no re-roll.
TEST_F(ViewsTest, RerolledSamplesAreThoseOfALaterAttempt) {
  EXPECT_THAT(Query("SELECT num_samples, num_rerolled, rerolled_rate FROM v_cell ORDER BY cell_id"),
              ElementsAre("6 0 0", "5 1 0.2"));
  Do([&] { ASSERT_OK(store_->RequeueSample(1, 99)); });
  EXPECT_THAT(Query("SELECT num_samples, num_rerolled FROM v_cell ORDER BY cell_id LIMIT 1"),
              ElementsAre("5 0"));
  Finish({baseline_, 0, 0}, Verdict::kCorrect, 10);
  EXPECT_THAT(Query("SELECT num_samples, num_rerolled FROM v_cell ORDER BY cell_id LIMIT 1"),
              ElementsAre("6 1"));
}

TEST_F(ViewsTest, ACellWithoutSamplesHasNoAccuracy) {
  Do([&] {
    ASSERT_OK(store_->UpsertCell({.key = "key-new", .model_id = 1, .benchmark_id = benchmark_}));
  });
  EXPECT_THAT(Query("SELECT num_samples, accuracy, mean_completion_tokens FROM v_cell"
                    " WHERE cell_key = 'key-new'"),
              ElementsAre("0 - -"));
}

TEST_F(ViewsTest, SamplesTellTheirItemGradeAndPlace) {
  EXPECT_THAT(Query("SELECT item, level, repeat, verdict, correct, extracted, finish_reason,"
                    " truncated, thinking_tokens, worker_id, device, git_commit, lease_id,"
                    " length(prompt_sha256) FROM v_sample WHERE method = 'rtn' AND item_index > 0"
                    " ORDER BY item_index, repeat"),
              ElementsAre("item-1 1 0 no_answer 0 4 context 1 3 worker cpu abc lease-9 64",
                          "item-2 2 0 correct 1 4 stop 0 3 worker cpu abc lease-10 64",
                          "item-2 2 1 grader_error - 4 stop 0 3 worker cpu abc lease-11 64"));
}

TEST_F(ViewsTest, PairsAreTheUnitsThatBothHave) {
  EXPECT_THAT(
      Query("SELECT item, repeat, baseline_correct, correct, flip, baseline_completion_tokens,"
            " completion_tokens, baseline_truncated, truncated FROM v_paired"
            " WHERE sweep_id = 'sweep-000000000001' ORDER BY item_index, repeat"),
      ElementsAre("item-0 0 1 1 - 10 12 0 0", "item-0 1 1 0 harmful 20 24 0 0",
                  "item-1 0 1 0 harmful 10 50 0 1", "item-2 0 0 1 beneficial 50 30 1 0",
                  "item-2 1 0 - - 50 40 1 0"));
}

TEST_F(ViewsTest, DifficultyIsByLevel) {
  EXPECT_THAT(Query("SELECT method, level, num_items, num_samples, num_graded, num_correct,"
                    " accuracy, num_truncated, mean_completion_tokens FROM v_difficulty"
                    " ORDER BY cell_id, level"),
              ElementsAre("bf16 1 2 4 4 4 1 0 12.5", "bf16 2 1 2 2 0 0 2 50",
                          "rtn 1 2 3 3 1 0.3333 1 28.67", "rtn 2 1 2 1 1 1 0 35"));
}

TEST_F(ViewsTest, LengthIsSplitByVerdict) {
  EXPECT_THAT(Query("SELECT method, num_samples, num_truncated, truncated_rate,"
                    " mean_completion_tokens, max_completion_tokens,"
                    " mean_completion_tokens_correct, mean_completion_tokens_wrong,"
                    " mean_thinking_tokens FROM v_length ORDER BY cell_id"),
              ElementsAre("bf16 6 2 0.3333 25 50 12.5 50 3", "rtn 5 1 0.2 31.2 50 21 37 3"));
}

TEST_F(ViewsTest, LatencyIsPerCellAndDevice) {
  // Each sample: queue 1, first token 100, end 700; rtn decodes 12+24+50+30+40-5 = 151 steps.
  EXPECT_THAT(Query("SELECT method, device, num_samples, mean_queue_us, mean_ttft_us, max_e2e_us,"
                    " mean_tpot_us, mean_batch_size, num_preemptions FROM v_latency"
                    " WHERE method = 'rtn'"),
              ElementsAre(fmt::format("rtn cpu 5 1 100 700 {:.4g} 2.5 5", 5 * 600.0 / 151)));
}

TEST_F(ViewsTest, AttemptsGiveTheReRollRate) {
  EXPECT_THAT(Query("SELECT method, num_units, num_samples, num_grants, num_rerolls, reroll_rate,"
                    " num_expired, num_failed, num_fenced FROM v_attempt ORDER BY cell_id"),
              ElementsAre("bf16 6 6 6 0 0 0 0 0", "rtn 6 5 8 2 0.3333 1 1 0"));
}

TEST_F(ViewsTest, SweepsAndProvenanceCanBeJoined) {
  EXPECT_THAT(
      Query("SELECT s.sweep_id, s.sweep_state, s.position, s.num_units, c.method,"
            " s.baseline_cell_id IS NULL FROM v_sweep_cell AS s"
            " JOIN v_cell AS c USING(cell_id) ORDER BY s.position"),
      ElementsAre("sweep-000000000001 active 0 6 bf16 1", "sweep-000000000001 active 1 6 rtn 0"));
  EXPECT_THAT(Query("SELECT DISTINCT git_commit, hostname FROM v_provenance"),
              ElementsAre("abc box"));
}

TEST_F(ViewsTest, EventsAreNamedAndTellTheirUnitAndLease) {
  Do([&] {
    ASSERT_OK(
        store_->InsertEvent({.time_us = 5,
                             .kind = "unit_failed",
                             .sweep_id = "sweep-000000000001",
                             .cell_id = cell_,
                             .worker_id = "worker",
                             .detail_json = R"({"item_index":1,"repeat":0,"lease_id":"l"})"}));
    ASSERT_OK(store_->InsertEvent({.time_us = 6, .kind = "worker_online", .detail_json = "{}"}));
  });
  EXPECT_THAT(Query("SELECT kind, sweep_name, model, bits, benchmark, item, repeat, lease_id,"
                    " worker_id FROM v_event ORDER BY event_id"),
              ElementsAre("unit_failed first tiny 3-16-16 arith item-1 0 l worker",
                          "worker_online - - - - - - - -"));
}

TEST_F(ViewsTest, ARequeuedSampleLeavesTheViewsAndStaysInTheHistory) {
  ASSERT_OK_AND_ASSIGN(const int64_t sample_id, OpenReader()->FindSample(cell_, 0, 0));
  Do([&] { ASSERT_OK(store_->RequeueSample(sample_id, 70)); });
  EXPECT_THAT(Query("SELECT num_samples, num_correct, completion_tokens FROM v_cell"
                    " WHERE method = 'rtn'"),
              ElementsAre("4 1 144"));
  EXPECT_THAT(
      Query(fmt::format("SELECT r.completion_tokens, r.requeued_time_us, length(r.text) > 0,"
                        " g.verdict FROM requeued_sample AS r JOIN requeued_grade AS g"
                        " ON g.sample_id = r.id WHERE r.id = {}",
                        sample_id)),
      ElementsAre("12 70 1 1"));
  EXPECT_THAT(Query("SELECT count(*) FROM sample_text"), ElementsAre("10"));
  EXPECT_THAT(Query("SELECT count(*) FROM grade"), ElementsAre("10"));
}

}  // namespace
}  // namespace assay::storage
