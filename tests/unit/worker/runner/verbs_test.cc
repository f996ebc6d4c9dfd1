// The verbs as a person runs them: the program, its output and its exit code.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/exit_codes.h"
#include "tests/testing/local_system.h"
#include "tests/unit/worker/runner/runner_client.h"

namespace assay::worker {
namespace {

using nlohmann::json;
using testing::BinaryPath;
using testing::CommandResult;
using testing::kNoShared;
using testing::RunProgram;
using testing::SharedPath;
using testing::TemporaryDirectory;

CommandResult Runner(std::vector<std::string> arguments, const std::string& input = "") {
  arguments.insert(arguments.begin(), BinaryPath("assay-runner"));
  return RunProgram(arguments, input);
}

TEST(GenerateVerbTest, TheAnswerIsPrintedAsText) {
  const CommandResult result = Runner(
      {"generate", TinyModel(), "Let k = 93. Let u = k + 59. What is u?", "--temperature", "0"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(result.out.ends_with("\\boxed{152}.\n")) << result.out;
}

TEST(GenerateVerbTest, StreamedTextEqualsTheTextOfTheWholeAnswer) {
  const std::vector<std::string> arguments = {"generate", TinyModel(), "What is 12 + 30?", "--seed",
                                              "5"};
  std::vector<std::string> as_json = arguments;
  as_json.push_back("--json");
  const CommandResult streamed = Runner(arguments);
  const CommandResult whole = Runner(as_json);
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  const json object = json::parse(whole.out);
  EXPECT_EQ(streamed.out, object["text"].get<std::string>() + "\n");
  EXPECT_EQ(object["completion_tokens"], object["ids"].size());
}

TEST(TokenizeVerbTest, EachLineGivesIds) {
  const CommandResult result =
      Runner({"tokenize", TinyModel()}, "{\"text\":\"39 + 20\"}\n\n{\"text\":\"\"}\n");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::istringstream lines(result.out);
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  EXPECT_GT(json::parse(line)["ids"].size(), 0u);
  ASSERT_TRUE(std::getline(lines, line));
  EXPECT_EQ(json::parse(line)["ids"].size(), 0u);
}

TEST(TokenizeVerbTest, TheTokenizersFilesAreEnough) {
  const TemporaryDirectory directory;
  for (const char* file : {"tokenizer.json", "tokenizer_config.json"}) {
    std::filesystem::copy(TinyModel() + "/" + file, directory.path());
  }
  EXPECT_EQ(Runner({"tokenize", directory.path()}, "{\"text\":\"a\"}\n").exit_code, 0);
}

TEST(TokenizeVerbTest, TheFirstBadLineIsNamed) {
  const struct {
    const char* line;
    const char* says;
  } kCases[] = {{"{", "line 2: not a JSON object"},
                {"{\"txt\":\"a\"}", "line 2: the field \"text\" is missing"},
                {"{\"text\":7}", "line 2: \"text\" must be a string, not number"}};
  for (const auto& c : kCases) {
    const CommandResult result =
        Runner({"tokenize", TinyModel()}, std::string("{\"text\":\"a\"}\n") + c.line + "\n{}\n");
    EXPECT_EQ(result.exit_code, kExitBadInput);
    EXPECT_NE(result.err.find(c.says), std::string::npos) << result.err;
  }
}

TEST(ScoreVerbTest, LogProbabilitiesEqualTheReference) {
  const std::string path = SharedPath("reference/model_tiny-qwen2-1m.jsonl");
  if (path.empty()) GTEST_SKIP() << kNoShared;
  std::ifstream file(path);
  std::string input;
  std::vector<json> expected;
  for (std::string line; std::getline(file, line);) {
    expected.push_back(json::parse(line));
    input += json{{"ids", expected.back()["full_ids"]}}.dump() + "\n";
  }
  const CommandResult result = Runner({"score", TinyModel()}, input);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::istringstream lines(result.out);
  for (const json& reference : expected) {
    std::string line;
    ASSERT_TRUE(std::getline(lines, line));
    const json scores = json::parse(line)["target_logprobs"];
    ASSERT_EQ(scores.size(), reference["target_logprobs"].size());
    for (size_t i = 0; i < scores.size(); ++i) {
      EXPECT_NEAR(scores[i].get<double>(), reference["target_logprobs"][i].get<double>(), 2e-3)
          << reference["id"] << " token " << i;
    }
  }
}

TEST(ScoreVerbTest, BadIdsAreNamed) {
  for (const char* line : {"{\"ids\":[512]}", "{\"ids\":[-1]}", "{\"ids\":[1.5]}", "{\"ids\":[]}",
                           "{\"ids\":\"a\"}", "{}", "5"}) {
    const CommandResult result = Runner({"score", TinyModel()}, std::string(line) + "\n");
    EXPECT_EQ(result.exit_code, kExitBadInput) << line;
    EXPECT_NE(result.err.find("line 1: "), std::string::npos) << result.err;
  }
}

TEST(ScoreVerbTest, NothingIsScoredBesideABadText) {
  const CommandResult result = Runner({"score", TinyModel()}, "{\"ids\":[1,2]}\n\n{\"ids\":[]}\n");
  EXPECT_EQ(result.exit_code, kExitBadInput);
  EXPECT_NE(result.err.find("line 3: "), std::string::npos) << result.err;
  EXPECT_EQ(result.out, "");
}

TEST(QuantizeVerbTest, AnArtifactIsMadeOnceAndAnswers) {
  const TemporaryDirectory directory;
  const std::vector<std::string> arguments = {
      "quantize", TinyModel(), "--method", "rtn", "--weight-bits", "4", "--out", directory / "w4"};
  const CommandResult made = Runner(arguments);
  ASSERT_EQ(made.exit_code, 0) << made.err;
  EXPECT_EQ(made.out, directory / "w4\n");
  EXPECT_EQ(Runner({"generate", directory / "w4", "What is 2 + 3?"}).exit_code, 0);
  const CommandResult again = Runner(arguments);
  EXPECT_EQ(again.exit_code, kExitCantCreate);
  EXPECT_NE(again.err.find("exists"), std::string::npos) << again.err;
}

TEST(VerbsTest, MistakesEndWithOneLineAndTheRightCode) {
  const TemporaryDirectory directory;
  const struct {
    std::vector<std::string> arguments;
    int exit_code;
    const char* says;
  } kCases[] = {
      {{}, kExitUsage, "needs a command: serve, generate"},
      {{"generte"}, kExitUsage, ""},
      {{"generate", TinyModel()}, kExitUsage, "PROMPT"},
      {{"generate", TinyModel(), "x", "--max-tokens", "0"}, kExitUsage, "--max-tokens"},
      {{"generate", "/no/such/model", "x"}, kExitNotFound, "/no/such/model"},
      {{"generate", directory.path(), "x"}, kExitNotFound, "config.json"},
      {{"generate", TinyModel(), std::string(40'000, '7')}, kExitBadInput, "cannot run"},
      {{"tokenize", directory.path()}, kExitNotFound, "tokenizer.json"},
      {{"score", "/no/such/model"}, kExitNotFound, "/no/such/model"},
      {{"quantize", TinyModel(), "--method", "rtn", "--out", directory / "x"},
       kExitBadInput,
       "--bits"},
      {{"quantize", TinyModel(), "--method", "rtn", "--bits", "9-16-16", "--out", directory / "x"},
       kExitBadInput,
       "9-16-16"},
      {{"quantize", TinyModel(), "--method", "rtn", "--bits", "4-16-16", "--kv-bits", "4", "--out",
        directory / "x"},
       kExitBadInput,
       "not both"},
      {{"quantize", TinyModel(), "--method", "kvquant_star", "--kv-bits", "4", "--calibration",
        directory / "none.jsonl", "--out", directory / "x"},
       kExitNotFound,
       "none.jsonl"},
  };
  for (const auto& c : kCases) {
    const CommandResult result = Runner(c.arguments);
    EXPECT_EQ(result.exit_code, c.exit_code) << result.err;
    EXPECT_NE(result.err.find(c.says), std::string::npos) << result.err;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    EXPECT_EQ(result.out, "");
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

}  // namespace
}  // namespace assay::worker
