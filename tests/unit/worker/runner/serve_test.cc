// The real runner with the tiny model: what the agent relies on.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/hash.h"
#include "storage/text/text_codec.h"
#include "tests/unit/worker/runner/runner_client.h"

namespace assay::worker {
namespace {

using testing::kNoShared;
using testing::SharedPath;
using testing::SourcePath;
using testing::TemporaryDirectory;

constexpr char kQuestion[] =
    "Sam has 39 pens. Sam finds 20 pens. Then the number of pens grows 9 times. How many pens does "
    "Sam have now?";

v1::RunnerCommand Greedy(const std::vector<std::string>& questions, int64_t max_tokens = 512) {
  v1::RunnerCommand command;
  v1::SubmitUnits* submit = command.mutable_submit();
  submit->mutable_sampling()->set_temperature(0);
  submit->mutable_sampling()->set_top_p(1);
  submit->mutable_sampling()->set_max_tokens(max_tokens);
  for (size_t i = 0; i < questions.size(); ++i) {
    v1::RunnerUnit* unit = submit->add_units();
    unit->mutable_key()->set_cell_id(1);
    unit->mutable_key()->set_item_index(static_cast<int>(i));
    unit->set_epoch(4);
    unit->set_seed(99);
    unit->set_user_text(questions[i]);
  }
  return command;
}

bool IsDone(const v1::RunnerEvent& event) { return event.has_unit_done(); }

std::string Text(const v1::Sample& sample) {
  return storage::DecompressText(sample.text_zstd()).value_or("<not zstd>");
}

std::vector<int32_t> Ids(const v1::Sample& sample) {
  return storage::DecompressTokenIds(sample.token_ids_zstd()).value_or(std::vector<int32_t>());
}

TEST(RunnerServeTest, TheFirstEventSaysWhereResultsAreMade) {
  RunnerClient runner;
  const v1::RunnerEvent started = runner.WaitFor([](const auto&) { return true; });
  ASSERT_TRUE(started.has_started());
  EXPECT_EQ(started.started().provenance().backend(), "cpu");
  EXPECT_NE(started.started().provenance().engine_numerics_version(), "");
  EXPECT_NE(started.started().provenance().device().find("1 thread"), std::string::npos);
}

TEST(RunnerServeTest, AUnitBecomesASampleWithAllThatIsKnownOfIt) {
  RunnerClient runner;
  ASSERT_TRUE(runner.Load(TinyModel()).has_loaded());
  runner.Send(Greedy({kQuestion}));
  const v1::Sample sample = runner.WaitFor(IsDone).unit_done().sample();
  EXPECT_EQ(sample.unit().cell_id(), 1);
  EXPECT_EQ(sample.epoch(), 4);
  EXPECT_EQ(sample.seed(), 99u);
  EXPECT_EQ(sample.finish_reason(), v1::FINISH_REASON_STOP);
  // The mark of thinking stays in the text, special or not; the end token does not.
  const std::string text = Text(sample);
  EXPECT_NE(text.find("</think>"), std::string::npos) << text;
  EXPECT_TRUE(text.ends_with("\\boxed{531}.")) << text;
  const std::vector<int32_t> ids = Ids(sample);
  EXPECT_EQ(std::ssize(ids), sample.completion_tokens());
  EXPECT_EQ(ids.back(), 0) << "the end token is counted";
  const auto mark = std::find(ids.begin(), ids.end(), 5);  // </think>
  EXPECT_EQ(sample.thinking_tokens(), mark - ids.begin() + 1);
  EXPECT_EQ(sample.prompt_tokens(), 37);
  EXPECT_EQ(sample.prompt_sha256().size(), 32u);
  EXPECT_GT(sample.e2e_us(), 0);
  EXPECT_GE(sample.e2e_us(), sample.ttft_us());
  EXPECT_GE(sample.mean_batch_size(), 1);
  EXPECT_GT(sample.finished_time_us(), 0);
}

TEST(RunnerServeTest, ACutAnswerSaysSoAndHasNoEndOfThinking) {
  RunnerClient runner;
  ASSERT_TRUE(runner.Load(TinyModel()).has_loaded());
  runner.Send(Greedy({kQuestion}, /*max_tokens=*/5));
  const v1::Sample sample = runner.WaitFor(IsDone).unit_done().sample();
  EXPECT_EQ(sample.finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(sample.completion_tokens(), 5);
  EXPECT_EQ(sample.thinking_tokens(), -1);
}

TEST(RunnerServeTest, APromptLongerThanTheContextIsARejectedSample) {
  RunnerClient runner;
  ASSERT_TRUE(runner.Load(TinyModel()).has_loaded());
  runner.Send(Greedy({std::string(40'000, '7'), "What is 2 + 3?"}));
  v1::Sample first = runner.WaitFor(IsDone).unit_done().sample();
  v1::Sample second = runner.WaitFor(IsDone).unit_done().sample();
  if (first.unit().item_index() != 0) std::swap(first, second);
  EXPECT_EQ(first.finish_reason(), v1::FINISH_REASON_REJECTED);
  EXPECT_EQ(first.completion_tokens(), 0);
  EXPECT_EQ(Text(first), "");
  EXPECT_NE(second.finish_reason(), v1::FINISH_REASON_REJECTED);
}

TEST(RunnerServeTest, GreedyAnswersEqualTheReference) {
  const std::string path = SharedPath("reference/model_tiny-qwen2-1m.jsonl");
  if (path.empty()) GTEST_SKIP() << kNoShared;
  std::vector<std::string> questions;
  std::vector<nlohmann::json> expected;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    expected.push_back(nlohmann::json::parse(line));
    const std::string prompt = expected.back()["prompt"];
    const std::string user = "<｜User｜>";
    const size_t begin = prompt.find(user) + user.size();
    questions.push_back(prompt.substr(begin, prompt.find("<｜Assistant｜>") - begin));
  }
  RunnerClient runner;
  ASSERT_TRUE(runner.Load(TinyModel()).has_loaded());
  runner.Send(Greedy(questions));
  for (size_t n = 0; n < questions.size(); ++n) {
    const v1::Sample sample = runner.WaitFor(IsDone).unit_done().sample();
    const nlohmann::json& reference = expected[static_cast<size_t>(sample.unit().item_index())];
    EXPECT_EQ(sample.prompt_tokens(), std::ssize(reference["prompt_ids"]));
    EXPECT_EQ(Ids(sample), reference["greedy_ids"].get<std::vector<int32_t>>()) << reference["id"];
  }
}

TEST(RunnerServeTest, CancelledUnitsNeverComeBackAndOthersDo) {
  RunnerClient runner;
  ASSERT_TRUE(runner.Load(TinyModel()).has_loaded());
  v1::RunnerCommand cancel;
  cancel.mutable_cancel()->add_keys()->set_cell_id(1);  // item 0
  // Both commands are in the pipe before the engine has finished a sample.
  runner.Send(Greedy({kQuestion, kQuestion}));
  runner.Send(cancel);
  const v1::RunnerEvent done = runner.WaitFor(IsDone);
  EXPECT_EQ(done.unit_done().sample().unit().item_index(), 1);
  const v1::RunnerEvent idle = runner.WaitFor([](const v1::RunnerEvent& event) {
    return event.has_unit_done() || (event.has_progress() && event.progress().num_running() == 0);
  });
  EXPECT_TRUE(idle.has_progress());
}

TEST(RunnerServeTest, ProgressGrowsWithTheTokens) {
  RunnerClient runner;
  ASSERT_TRUE(runner.Load(TinyModel()).has_loaded());
  runner.Send(Greedy({kQuestion}));
  const v1::RunnerEvent idle = runner.WaitFor([](const v1::RunnerEvent& event) {
    return event.has_progress() && event.progress().num_running() == 0;
  });
  EXPECT_GT(idle.progress().tokens_generated(), 10);
  EXPECT_GT(idle.progress().memory_used_bytes(), 0);
}

TEST(RunnerServeTest, BudgetForcingEndsThinkingAtTheBudget) {
  RunnerClient runner;
  ASSERT_TRUE(runner.Load(TinyModel()).has_loaded());
  v1::RunnerCommand command = Greedy({kQuestion});
  v1::BudgetForcing* forcing = command.mutable_submit()->mutable_budget_forcing();
  forcing->set_max_thinking_tokens(10);
  forcing->set_end_of_thinking("</think>");
  forcing->set_forced_stop_text("\n</think>\n\n");
  runner.Send(command);
  const v1::Sample sample = runner.WaitFor(IsDone).unit_done().sample();
  EXPECT_NE(Text(sample).find("</think>"), std::string::npos) << Text(sample);
  EXPECT_GE(sample.thinking_tokens(), 10);
  EXPECT_LE(sample.thinking_tokens(), 14);
}

TEST(RunnerServeTest, AModelThatCannotBeLoadedSaysWhyAndTheRunnerGoesOn) {
  const TemporaryDirectory directory;
  RunnerClient runner;
  const v1::RunnerEvent failed = runner.Load(directory / "none");
  ASSERT_TRUE(failed.has_load_failed());
  EXPECT_NE(failed.load_failed().message().find("none"), std::string::npos);
  EXPECT_FALSE(failed.load_failed().out_of_memory());
  EXPECT_TRUE(runner.Load(TinyModel()).has_loaded());
}

TEST(RunnerServeTest, OtherNumericsAndTooLittleMemoryAreNotTheModelsFault) {
  RunnerClient runner;
  v1::RunnerCommand command;
  command.mutable_load()->set_model_dir(TinyModel());
  command.mutable_load()->set_engine_numerics_version("cpu-0");
  runner.Send(command);
  const auto failed = [](const v1::RunnerEvent& event) { return event.has_load_failed(); };
  v1::LoadFailed answer = runner.WaitFor(failed).load_failed();
  EXPECT_TRUE(answer.out_of_memory());
  EXPECT_NE(answer.message().find("cpu-0"), std::string::npos);

  command.mutable_load()->clear_engine_numerics_version();
  command.mutable_load()->set_memory_bytes(1000);
  runner.Send(command);
  answer = runner.WaitFor(failed).load_failed();
  EXPECT_TRUE(answer.out_of_memory());
}

TEST(RunnerServeTest, UnitsWithoutAModelFail) {
  RunnerClient runner;
  runner.Send(Greedy({kQuestion}));
  const v1::RunnerEvent event =
      runner.WaitFor([](const v1::RunnerEvent& e) { return e.has_unit_failed(); });
  EXPECT_EQ(event.unit_failed().message(), "no model is loaded");
}

TEST(RunnerServeTest, TheProcessEndsWellWhenItsInputEnds) {
  RunnerClient runner;
  ASSERT_TRUE(runner.Load(TinyModel()).has_loaded());
  runner.Send(Greedy({kQuestion}));
  runner.process()->CloseStdin();
  const std::optional<int> status = runner.process()->Wait(absl::Seconds(60));
  ASSERT_TRUE(status.has_value());
  EXPECT_EQ(DescribeWaitStatus(*status), "exit status 0");
}

TEST(RunnerServeTest, GarbageIsFatalAndEndsTheProcess) {
  RunnerClient runner;
  const std::string garbage = "\xff\xff\xff\xff\xff";
  ASSERT_GT(::write(runner.process()->stdin_fd(), garbage.data(), garbage.size()), 0);
  const v1::RunnerEvent fatal =
      runner.WaitFor([](const v1::RunnerEvent& event) { return event.has_fatal(); });
  EXPECT_NE(fatal.fatal().message().find("a frame claims"), std::string::npos);
  const std::optional<int> status = runner.process()->Wait(absl::Seconds(60));
  ASSERT_TRUE(status.has_value());
  EXPECT_EQ(DescribeWaitStatus(*status), "exit status 1");
}

// Quantizing ----------------------------------------------------------------------------------

v1::RunnerEvent Quantize(RunnerClient* runner, const std::string& out, const std::string& method,
                         const std::string& bits, const std::string& calibration = "") {
  v1::RunnerCommand command;
  v1::QuantizeModel* quantize = command.mutable_quantize();
  quantize->set_model_dir(TinyModel());
  quantize->set_output_dir(out);
  quantize->mutable_method()->set_method(method);
  quantize->mutable_method()->set_bits(bits);
  quantize->mutable_method()->set_pre_bias(method == "kvquant_star");
  quantize->mutable_method()->set_calibration_set("texts");
  quantize->set_calibration_jsonl(calibration);
  runner->Send(command);
  return runner->WaitFor([](const v1::RunnerEvent& event) {
    return event.has_quantized() || event.has_quantize_failed();
  });
}

TEST(RunnerServeTest, AQuantizedModelLoadsAndAnswers) {
  const TemporaryDirectory directory;
  RunnerClient runner;
  ASSERT_TRUE(Quantize(&runner, directory / "w4", "rtn", "4-16-16").has_quantized());
  ASSERT_TRUE(runner.Load(directory / "w4").has_loaded());
  runner.Send(Greedy({kQuestion}));
  EXPECT_NE(Text(runner.WaitFor(IsDone).unit_done().sample()).find("\\boxed{"), std::string::npos);
}

TEST(RunnerServeTest, CalibrationTextsReachTheQuantizer) {
  const TemporaryDirectory directory;
  ASSERT_OK_AND_ASSIGN(const std::string texts,
                       ReadFile(SourcePath("examples/calibration/arith-traces.jsonl")));
  RunnerClient runner;
  const v1::RunnerEvent event =
      Quantize(&runner, directory / "kv4", "kvquant_star", "16-16-4", texts);
  ASSERT_TRUE(event.has_quantized()) << event.quantize_failed().message();
  EXPECT_TRUE(runner.Load(directory / "kv4").has_loaded());
}

TEST(RunnerServeTest, WhatCannotBeQuantizedSaysWhyAndLeavesNothing) {
  const TemporaryDirectory directory;
  RunnerClient runner;
  const struct {
    const char* method;
    const char* bits;
    const char* calibration;
    const char* says;
  } kCases[] = {
      {"rtm", "4-16-16", "", "rtm"},
      {"rtn", "9-16-16", "", "9-16-16"},
      {"kvquant_star", "16-16-4", "", "needs calibration"},
      {"kvquant_star", "16-16-4", "{\"text\": 5}\n", "texts:1: \"text\" must be a string"},
      {"kvquant_star", "16-16-4", "{\"text\": \"a\"}\nnonsense\n", "texts:2: not a JSON object"},
      {"kvquant_star", "16-16-4", "{\"question\": \"a\"}\n", "texts:1: a record needs"},
  };
  for (const auto& c : kCases) {
    const v1::RunnerEvent event =
        Quantize(&runner, directory / "out", c.method, c.bits, c.calibration);
    ASSERT_TRUE(event.has_quantize_failed()) << c.says;
    EXPECT_NE(event.quantize_failed().message().find(c.says), std::string::npos)
        << event.quantize_failed().message();
    EXPECT_TRUE(std::filesystem::is_empty(directory.path())) << c.says;
  }
}

}  // namespace
}  // namespace assay::worker
