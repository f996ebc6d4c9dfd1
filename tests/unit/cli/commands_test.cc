// The built program against a coordinator with canned answers: what it prints, and its exit codes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "base/file.h"
#include "tests/testing/local_system.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/cli/fake_coordinator.h"

namespace assay::cli {
namespace {

using testing::BinaryPath;
using testing::CommandResult;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::RunProgram;
using testing::TemporaryDirectory;
using Json = nlohmann::json;

std::vector<Json> JsonLines(const std::string& text) {
  std::vector<Json> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(Json::parse(line));
  return lines;
}

v1::ResultRow Row(int64_t cell, const std::string& method, const std::string& bits,
                  const std::string& group, double accuracy) {
  v1::ResultRow row;
  row.set_cell_id(cell);
  row.set_model("tiny");
  row.set_method(method);
  row.set_bits(bits);
  row.set_benchmark("arith500");
  row.set_group(group);
  row.set_num_samples(group == "all" ? 100 : 50);
  row.set_num_correct(static_cast<int64_t>(accuracy * static_cast<double>(row.num_samples())));
  row.set_num_units(row.num_samples());
  row.set_accuracy(accuracy);
  row.set_ci_low(accuracy - 0.05);
  row.set_ci_high(accuracy + 0.03);
  row.set_mean_output_tokens(112.25);
  row.set_label(cell == 1 ? "baseline" : "risky");
  row.set_mcnemar_p(-1);
  if (cell != 1) {
    row.set_has_drop(true);
    row.set_drop(0.46);
    row.set_drop_ci_low(0.38);
    row.set_drop_ci_high(0.541);
    row.set_num_truncated(7);
    row.set_mcnemar_p(0.001);
  }
  return row;
}

v1::GetSampleResponse Sample(int64_t id, int64_t cell, const std::string& text,
                             std::vector<int32_t> token_ids) {
  v1::GetSampleResponse sample;
  v1::SampleSummary* s = sample.mutable_summary();
  s->set_sample_id(id);
  s->set_cell_id(cell);
  s->set_model("tiny");
  s->set_method(cell == 1 ? "bf16" : "rtn");
  s->set_bits(cell == 1 ? "16-16-16" : "3-16-16");
  s->set_benchmark("arith500");
  s->set_item("arith-L1-001");
  s->set_level("1");
  s->set_finish_reason(v1::FINISH_REASON_STOP);
  s->set_prompt_tokens(20);
  s->set_completion_tokens(static_cast<int64_t>(token_ids.size()));
  s->set_thinking_tokens(-1);
  s->set_ttft_us(12'000);
  s->set_e2e_us(112'000);
  s->mutable_grade()->set_verdict(cell == 1 ? v1::Grade::VERDICT_CORRECT
                                            : v1::Grade::VERDICT_WRONG);
  s->mutable_grade()->set_grader("boxed_number");
  s->mutable_grade()->set_grader_version("1");
  s->mutable_grade()->set_extracted(cell == 1 ? "5" : "6");
  *sample.add_grades() = s->grade();
  sample.set_question("2 + 3?");
  sample.set_user_text("2 + 3? Put the answer in \\boxed{}.");
  sample.set_gold("5");
  sample.set_text(text);
  for (const int32_t token : token_ids) sample.add_token_ids(token);
  sample.set_worker_id("w1");
  sample.mutable_provenance()->set_hostname("host");
  sample.mutable_provenance()->set_git_commit("abc123");
  return sample;
}

class CommandsTest : public ::testing::Test {
 protected:
  CommandsTest() {
    fake_.sweep.set_id("sweep-1");
    fake_.sweep.set_name("demo");
    fake_.sweep.set_owner("lena");
    fake_.sweep.set_state(v1::SWEEP_STATE_ACTIVE);
    fake_.sweep.set_num_units(100);
    fake_.sweep.set_num_units_done(25);
    fake_.sweep.set_tokens_done(2500);
    fake_.sweep.set_tokens_expected(10'000);
    fake_.sweep.set_tokens_per_s(1234);
    fake_.sweep.set_eta_us(42'000'000);
    fake_.sweep.set_resolved_yaml("name: demo\n");
    v1::CellStatus* cell = fake_.sweep.add_cells();
    cell->set_cell_id(7);
    cell->set_model("tiny");
    cell->mutable_method()->set_method("kvquant_star");
    cell->mutable_method()->set_pre_bias(true);
    cell->mutable_method()->set_bits("16-16-4");
    cell->set_benchmark("arith500");
    cell->set_state(v1::CellStatus::STATE_RUNNING);
    cell->set_num_units(100);
    cell->set_num_units_done(25);
    cell->set_num_correct(20);
    cell->set_tokens_done(2500);

    fake_.plan.set_name("demo");
    fake_.plan.set_num_units(100);
    fake_.plan.set_num_units_cached(25);
    fake_.plan.set_num_quantize_jobs(1);
    fake_.plan.set_expected_tokens(7'500);
    fake_.plan.set_expected_duration_us(72'000'000);
    fake_.plan.add_warnings("careful\x1b[2J");
    v1::PlannedCell* planned = fake_.plan.add_cells();
    planned->set_engine_numerics_version("cpu-2");
    planned->set_model("tiny");
    planned->mutable_method()->set_method("rtn");
    planned->mutable_method()->set_bits("4-16-16");
    planned->set_benchmark("arith500");
    planned->set_num_items(100);
    planned->set_num_repeats(1);
    planned->set_num_units_cached(25);
    planned->set_artifact_key("k");
    planned->set_expected_tokens(7'500);

    for (const int64_t id : {1, 2}) {
      const std::string method = id == 1 ? "bf16" : "rtn";
      const std::string bits = id == 1 ? "16-16-16" : "3-16-16";
      *fake_.results.add_rows() = Row(id, method, bits, "all", id == 1 ? 0.95 : 0.49);
      // Out of order, and 10 after 2: levels are sorted as numbers.
      for (const char* level : {"10", "2"}) {
        *fake_.results.add_rows() = Row(id, method, bits, level, id == 1 ? 0.94 : 0.40);
      }
    }
    fake_.results.set_complete(true);

    fake_.samples = {Sample(11, 1, "Let me think. 2 + 3 = 5, so \\boxed{5}", {1, 2, 3, 4}),
                     Sample(12, 2, "Let me think. 2 + 3 = 6, so \x1b[2J\\boxed{6}", {1, 2, 9})};
  }

  CommandResult Assay(std::vector<std::string> argv, const std::string& input = "") {
    argv.insert(argv.begin(), BinaryPath("assay"));
    return RunProgram(argv, input, {"ASSAY_COORDINATOR=" + fake_.address(), "TZ=UTC"});
  }

  FakeCoordinator fake_;
};

TEST_F(CommandsTest, PlanSaysCellsUnitsCacheHitsTokensAndTime) {
  const CommandResult plan = Assay({"sweep", "plan", "-"}, "name: demo\n");
  EXPECT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_EQ(plan.out,
            "model  method  bits     benchmark  items  repeats  units  stored  artifact  tokens\n"
            "-----  ------  -------  ---------  -----  -------  -----  ------  --------  ------\n"
            "tiny   rtn     4-16-16  arith500     100        1    100      25  to make   ~7.50k\n"
            "\n"
            "demo: 1 cell on cpu-2, 100 units (25 stored already), 1 quantize job, ~7.50k tokens, "
            "~1m 12s\n");
  EXPECT_EQ(plan.err, "warning: careful\\x1b[2J\n");
  EXPECT_EQ(Json::parse(Assay({"sweep", "plan", "-", "--json"}, "x").out)["num_units"], 100);
}

TEST_F(CommandsTest, AWrongSpecIsBadInputWithItsPlace) {
  const CommandResult plan = Assay({"sweep", "plan", "-"}, "wrong: 1\n");
  EXPECT_EQ(plan.exit_code, 65);
  EXPECT_EQ(plan.out, "");
  EXPECT_EQ(plan.err, "assay: stdin:1:1: unknown key 'wrong'\n");
}

TEST_F(CommandsTest, SubmitPrintsOnlyTheId) {
  const TemporaryDirectory directory;
  ASSERT_OK(WriteFileAtomically(directory / "s.yaml", "name: demo\n"));
  const CommandResult submit = Assay({"sweep", "submit", directory / "s.yaml"});
  EXPECT_EQ(submit.exit_code, 0) << submit.err;
  EXPECT_EQ(submit.out, "sweep-1\n");
  EXPECT_EQ(fake_.submitted_yaml(), "name: demo\n");
}

TEST_F(CommandsTest, AMutationIsRetriedWithItsRequestId) {
  fake_.num_unavailable = 2;
  const CommandResult submit = Assay({"sweep", "submit", "-"}, "name: demo\n");
  EXPECT_EQ(submit.exit_code, 0) << submit.err;
  const std::vector<std::string> ids = fake_.request_ids();
  EXPECT_EQ(ids.size(), 3u);
  EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), 1u);
  EXPECT_NE(ids.at(0), "");
}

TEST_F(CommandsTest, ADiskThatStaysFullIsReportedInTheCoordinatorsWords) {
  fake_.num_unavailable = 1'000'000;
  const CommandResult submit = Assay({"sweep", "submit", "-"}, "name: demo\n");
  EXPECT_EQ(submit.exit_code, 69);
  EXPECT_EQ(submit.err, "assay: the disk is full\n");
}

TEST_F(CommandsTest, WaitingForASweepSaysHowItEnded) {
  v1::Sweep done = fake_.sweep;
  done.set_state(v1::SWEEP_STATE_DONE);
  fake_.watched = {fake_.sweep, done};
  const CommandResult submit = Assay({"sweep", "submit", "-", "--wait"}, "name: demo\n");
  EXPECT_EQ(submit.exit_code, 0) << submit.err;
  EXPECT_EQ(submit.out, "sweep-1\n");
  EXPECT_THAT(submit.err, HasSubstr("done 100.0%"));
  done.set_state(v1::SWEEP_STATE_FAILED);
  fake_.watched = {done};
  EXPECT_EQ(Assay({"sweep", "submit", "-", "--wait"}, "name: demo\n").exit_code, 1);
}

TEST_F(CommandsTest, WatchInAPipeTellsEachCellOnce) {
  v1::Sweep done = fake_.sweep;
  done.set_state(v1::SWEEP_STATE_DONE);
  done.set_num_units_done(100);
  done.set_tokens_done(9900);
  done.mutable_cells(0)->set_state(v1::CellStatus::STATE_DONE);
  done.mutable_cells(0)->set_num_units_done(100);
  done.mutable_cells(0)->set_num_correct(91);
  done.mutable_cells(0)->set_tokens_done(9900);
  v1::Sweep nearly = done;
  nearly.set_state(v1::SWEEP_STATE_ACTIVE);
  fake_.watched = {fake_.sweep, nearly, done};
  const CommandResult watch = Assay({"sweep", "watch", "sweep-1"});
  EXPECT_EQ(watch.exit_code, 0) << watch.err;
  std::vector<std::string> lines;
  std::istringstream stream(watch.out);
  for (std::string line; std::getline(stream, line);) {
    EXPECT_EQ(line.find('\x1b'), std::string::npos);
    lines.push_back(line.substr(10));  // without the time
  }
  EXPECT_EQ(lines,
            (std::vector<std::string>{
                "running 25.0% 25/100 units 2.50k of ~10.0k tokens 1.23k tokens/s ETA 6.1s",
                "cell 7 done: tiny kvquant_star pre-bias 16-16-4 arith500: 91.0% of 100, 9.90k "
                "tokens",
                "done 100.0% 100/100 units 9.90k tokens 1.23k tokens/s"}));
  EXPECT_EQ(JsonLines(Assay({"sweep", "watch", "sweep-1", "--json"}).out).size(), 3u);
}

TEST_F(CommandsTest, SweepsAreListedAndShown) {
  EXPECT_EQ(Assay({"sweep", "ls", "-q"}).out, "sweep-1\n");
  EXPECT_THAT(Assay({"sweep", "ls"}).out, HasSubstr("25/100"));
  const CommandResult show = Assay({"sweep", "show", "sweep-1"});
  EXPECT_THAT(show.out, HasSubstr("kvquant_star pre-bias"));
  EXPECT_THAT(show.out, HasSubstr("80.0"));
  EXPECT_EQ(Assay({"sweep", "show", "sweep-1", "-o", "yaml"}).out, "name: demo\n");
  const Json json = Json::parse(Assay({"sweep", "show", "sweep-1", "--json"}).out);
  EXPECT_EQ(json["state"], "active");
  EXPECT_EQ(json["cells"][0]["method"]["pre_bias"], true);
}

TEST_F(CommandsTest, ASweepSaysWhyItsCellsWait) {
  EXPECT_THAT(Assay({"sweep", "show", "sweep-1"}).out, Not(HasSubstr("waiting")));
  const std::string reason = "needs 2 GPUs of 74.0 GiB; the largest slot has 1 GPU of 78.0 GiB";
  for (int i = 0; i < 2; ++i) fake_.sweep.add_cells()->set_waiting_reason(reason);
  const CommandResult show = Assay({"sweep", "show", "sweep-1"});
  EXPECT_THAT(show.out, HasSubstr("waiting        2 cells: " + reason + "\n"));
}

TEST_F(CommandsTest, WhatIsNotThereIsNotFoundWithTheRemedy) {
  for (const char* verb : {"show", "watch", "cancel"}) {
    const CommandResult result = Assay({"sweep", verb, "sweep-9"});
    EXPECT_EQ(result.exit_code, 66) << verb;
    EXPECT_EQ(result.err,
              "assay: there is no sweep 'sweep-9'; `assay sweep ls` lists the sweeps\n");
  }
  EXPECT_EQ(Assay({"sample", "show", "99"}).exit_code, 66);
  EXPECT_EQ(Assay({"worker", "drain", "nobody"}).exit_code, 66);
}

TEST_F(CommandsTest, CancelPrintsTheIdAndTheNewState) {
  const CommandResult cancel = Assay({"sweep", "cancel", "sweep-1"});
  EXPECT_EQ(cancel.exit_code, 0) << cancel.err;
  EXPECT_EQ(cancel.out, "sweep-1\n");
  EXPECT_THAT(cancel.err, HasSubstr("cancelled"));
}

TEST_F(CommandsTest, TheTableHasARowPerMethodAndAColumnPerLevel) {
  const CommandResult results = Assay({"results", "sweep-1"});
  EXPECT_EQ(results.exit_code, 0) << results.err;
  EXPECT_EQ(results.out,
            "model  method  bits        L2   L10      overall [95%]         drop [95%]  tokens  "
            "trunc%  label\n"
            "-----  ------  --------  ----  ----  -----------------  -----------------  ------  "
            "------  --------\n"
            "tiny   bf16    16-16-16  94.0  94.0  95.0 [90.0, 98.0]                  -   112.2  "
            "   0.0  baseline\n"
            "tiny   rtn     3-16-16   40.0  40.0  49.0 [44.0, 52.0]  46.0 [38.0, 54.1]   112.2  "
            "   7.0  risky\n");
  EXPECT_EQ(fake_.results_by(), "level");
}

TEST_F(CommandsTest, RerolledSamplesAreToldBelowTheTable) {
  EXPECT_EQ(Assay({"results", "sweep-1"}).err, "");
  v1::ResultRow* rtn = nullptr;
  for (v1::ResultRow& row : *fake_.results.mutable_rows()) {
    row.set_num_stored(row.num_samples());
    if (row.cell_id() != 1 && row.group() == "all") rtn = &row;
  }
  ASSERT_NE(rtn, nullptr);
  rtn->set_num_rerolled(1);
  const CommandResult one = Assay({"results", "sweep-1"});
  EXPECT_EQ(
      one.err,
      "1 of 2 cells have re-rolled samples, from a later attempt than their unit's first; the "
      "most has rtn 3-16-16 on arith500: 1 of 100 (1.0%)\n");
  rtn->set_num_rerolled(2);
  EXPECT_THAT(Assay({"results", "sweep-1"}).err, HasSubstr("a cell may lean to short answers"));
  EXPECT_EQ(JsonLines(Assay({"results", "sweep-1", "--json"}).out)[3]["num_rerolled"], 2);
}

TEST_F(CommandsTest, TheTableIsMarkdownToo) {
  const CommandResult results = Assay({"results", "sweep-1", "-o", "md"});
  EXPECT_THAT(results.out, HasSubstr("| tiny  | rtn    | 3-16-16  | 40.0 | 40.0 |"));
  EXPECT_THAT(results.out, HasSubstr(" | risky    |\n"));
}

TEST_F(CommandsTest, JsonHasAnObjectPerCellAndLevel) {
  const std::vector<Json> rows = JsonLines(Assay({"results", "sweep-1", "--json"}).out);
  ASSERT_EQ(rows.size(), 6u);
  for (const char* key :
       {"model", "method", "bits", "benchmark", "level", "num_samples", "num_correct", "accuracy",
        "ci_low", "ci_high", "drop", "label", "mean_output_tokens", "truncated"}) {
    EXPECT_TRUE(rows[0].contains(key)) << key;
  }
  EXPECT_EQ(rows[0]["level"], "all");
  EXPECT_EQ(rows[1]["level"], "10");
  EXPECT_TRUE(rows[0]["drop"].is_null());
  EXPECT_EQ(rows[3]["drop"], 0.46);
  EXPECT_EQ(rows[3]["truncated"], 0.07);
  const Json array = Json::parse(Assay({"results", "sweep-1", "-o", "json"}).out);
  EXPECT_EQ(array, Json(rows));
}

TEST_F(CommandsTest, CsvHasTheRecordsOfTheJson) {
  const CommandResult results = Assay({"results", "sweep-1", "-o", "csv", "--by", "subject"});
  EXPECT_EQ(fake_.results_by(), "subject");
  EXPECT_THAT(results.out,
              HasSubstr("cell_id,model,method,bits,benchmark,level,subject,num_samples,"
                        "num_correct,accuracy,"));
  EXPECT_THAT(results.out,
              HasSubstr("2,tiny,rtn,3-16-16,arith500,all,all,100,49,0.49,0.44,0.52,0.46,"));
}

TEST_F(CommandsTest, ASampleIsShownWithItsControlCharactersWrittenOut) {
  const CommandResult show = Assay({"sample", "show", "12"});
  EXPECT_EQ(show.exit_code, 0) << show.err;
  EXPECT_THAT(show.out, Not(HasSubstr("\x1b")));
  EXPECT_THAT(show.out, HasSubstr("\\x1b[2J\\boxed{6}"));
  EXPECT_THAT(show.out, HasSubstr("wrong by boxed_number 1: answered 6; gold 5"));
  EXPECT_THAT(show.out, HasSubstr("2 + 3? Put the answer in"));
  EXPECT_THAT(show.out, HasSubstr("worker w1 on host"));
  const Json json = Json::parse(Assay({"sample", "show", "12", "--json"}).out);
  EXPECT_EQ(json["text"], fake_.samples[1].text());
}

TEST_F(CommandsTest, SamplesAreListedWithoutTheirTexts) {
  const CommandResult list = Assay({"sample", "ls", "sweep-1"});
  EXPECT_EQ(list.exit_code, 0) << list.err;
  EXPECT_THAT(list.out, HasSubstr("arith-L1-001"));
  EXPECT_THAT(list.out, Not(HasSubstr("Let me think")));
  EXPECT_EQ(Assay({"sample", "ls", "--cell", "2", "-q"}).out, "12\n");
}

TEST_F(CommandsTest, TwoCellsAreComparedOnOneItem) {
  const CommandResult by_sample = Assay({"sample", "diff", "11", "12"});
  EXPECT_EQ(by_sample.exit_code, 0) << by_sample.err;
  EXPECT_THAT(by_sample.out, HasSubstr("The first 2 tokens are equal; they part at token 2."));
  EXPECT_THAT(by_sample.out, HasSubstr("Let me think. 2 + 3 = \n"));
  EXPECT_THAT(by_sample.out, HasSubstr("5, so \\boxed{5}"));
  EXPECT_THAT(by_sample.out, HasSubstr("| 6, so \\x1b[2J\\boxed{6}"));
  const CommandResult by_cell = Assay({"sample", "diff", "1", "2", "--item", "arith-L1-001"});
  EXPECT_EQ(by_cell.out, by_sample.out);
  const CommandResult missing = Assay({"sample", "diff", "1", "2", "--item", "nope"});
  EXPECT_EQ(missing.exit_code, 66);
  EXPECT_THAT(missing.err, HasSubstr("cell 1 has no sample of item 'nope'"));
}

TEST_F(CommandsTest, TheVerdictIsTheExitCodeOfCompare) {
  *fake_.comparison.mutable_baseline() = Row(1, "bf16", "16-16-16", "all", 0.95);
  *fake_.comparison.mutable_cell() = Row(2, "rtn", "3-16-16", "all", 0.49);
  fake_.comparison.set_num_pairs(100);
  fake_.comparison.set_harmful_flips(46);
  const std::pair<const char*, int> verdicts[] = {
      {"lossless", 0}, {"risky", 1}, {"undecided", 2}, {"fair", 3}, {"partial", 2}};
  for (const auto& [label, exit_code] : verdicts) {
    fake_.comparison.mutable_cell()->set_label(label);
    const CommandResult compare = Assay({"compare", "1", "2"});
    EXPECT_EQ(compare.exit_code, exit_code) << label << compare.err;
    EXPECT_THAT(compare.out, HasSubstr(std::string("verdict     ") + label));
    EXPECT_THAT(compare.out, HasSubstr("46.0 [38.0, 54.1] points on 100 paired units"));
  }
}

TEST_F(CommandsTest, QueriesArePrintedInEveryFormat) {
  v1::RunQueryResponse first;
  for (const char* column : {"name", "n", "n"}) first.add_columns(column);
  auto* row = first.add_rows();
  row->add_values()->set_text("a,\x1b[31mb");
  row->add_values()->set_integer(int64_t{1} << 40);
  row->add_values()->set_real(0.5);
  v1::RunQueryResponse second;
  row = second.add_rows();
  row->add_values()->set_null(true);
  row->add_values()->set_blob(std::string("\x00\xff", 2));
  row->add_values()->set_real(2);
  second.set_truncated(true);
  fake_.query = {first, second};

  const CommandResult table = Assay({"query", "SELECT 1"});
  EXPECT_THAT(table.out, HasSubstr("name                     n  n_2\n"));
  EXPECT_THAT(table.out, HasSubstr("a,\\x1b[31mb  1099511627776  0.5\n"));
  EXPECT_THAT(table.out, HasSubstr("NULL"));
  EXPECT_THAT(table.err, HasSubstr("--max-rows"));
  EXPECT_EQ(Assay({"query", "SELECT 1", "-o", "csv"}).out,
            "name,n,n\n\"a,\x1b[31mb\",1099511627776,0.5\n,00FF,2\n");
  const Json array = Json::parse(Assay({"query", "SELECT 1", "-o", "json"}).out);
  EXPECT_EQ(array[0]["n"], int64_t{1} << 40);
  EXPECT_EQ(array[0]["n_2"], 0.5);
  EXPECT_TRUE(array[1]["name"].is_null());
  EXPECT_EQ(JsonLines(Assay({"query", "SELECT 1", "--json"}).out).size(), 2u);
  EXPECT_EQ(Assay({"query", "DELETE FROM sample"}).exit_code, 65);

  fake_.query_end = {grpc::StatusCode::DEADLINE_EXCEEDED, "the query ran longer than 10 s"};
  const CommandResult late = Assay({"query", "SELECT 1"});
  EXPECT_EQ(late.exit_code, 75);
  EXPECT_THAT(late.err, HasSubstr("assay: the query ran longer than 10 s"));
}

TEST_F(CommandsTest, TheFleetIsALineInAPipe) {
  v1::Worker* worker = fake_.fleet.add_workers();
  worker->set_worker_id("w1");
  worker->set_state(v1::Worker::STATE_ONLINE);
  worker->set_tokens_per_s(15'000);
  fake_.fleet.set_tokens_per_s(15'000);
  fake_.fleet.set_num_units_running(64);
  fake_.fleet_goes_on = true;
  const CommandResult top = Assay({"top", "--count", "2"});
  EXPECT_EQ(top.exit_code, 0) << top.err;
  EXPECT_THAT(top.out,
              HasSubstr("1 worker online, 0 sweeps, 64 running, 0 queued, 15.0k tokens/s"));
  EXPECT_EQ(std::count(top.out.begin(), top.out.end(), '\n'), 2);
  EXPECT_EQ(Assay({"worker", "ls", "-q"}).out, "w1\n");
  EXPECT_EQ(Assay({"worker", "drain", "w1"}).out, "w1\n");
  EXPECT_EQ(JsonLines(Assay({"worker", "ls", "--json"}).out)[0]["state"], "online");
}

TEST_F(CommandsTest, WorkersAreListedWithTheirMemoryAndTheirArithmetic) {
  v1::Worker* worker = fake_.fleet.add_workers();
  worker->set_worker_id("w1");
  worker->set_state(v1::Worker::STATE_ONLINE);
  worker->set_device("NVIDIA H100 80GB HBM3");
  worker->set_engine_numerics_version("cuda-1");
  for (int gpu = 0; gpu < 2; ++gpu) {
    worker->add_slots()->set_memory_bytes(int64_t{78} << 30);
    worker->add_slot_states()->set_memory_used_bytes(int64_t{30} << 30);
  }
  const std::string table = Assay({"worker", "ls"}).out;
  EXPECT_THAT(table, HasSubstr("60.0 GiB of 156.0 GiB"));
  EXPECT_THAT(table, HasSubstr("cuda-1"));
  EXPECT_THAT(table, HasSubstr("NVIDIA H100 80GB HBM3"));
}

}  // namespace
}  // namespace assay::cli
