// What people get wrong, through the real programs: each mistake gives one clear line that names
// the thing and the remedy, the right exit code, and leaves nothing half-done.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/file.h"
#include "tests/testing/local_system.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay {
namespace {

using testing::BinaryPath;
using testing::CommandResult;
using testing::LocalSystem;
using testing::RunProgram;
using testing::SourcePath;
using testing::TemporaryDirectory;

constexpr char kTinyModel[] = "examples/models/tiny-qwen2-1m";

// What a person sees: one error line, whatever else is said.
int NumErrorLines(const std::string& err) {
  int count = 0;
  std::istringstream lines(err);
  for (std::string line; std::getline(lines, line);) count += line.starts_with("assay") ? 1 : 0;
  return count;
}

struct WrongSpec {
  const char* name;
  const char* yaml;
  const char* says;  // a piece of the error line
};

class WrongSpecTest : public ::testing::TestWithParam<WrongSpec> {};

TEST_P(WrongSpecTest, IsRefusedWithItsPlaceAndStoresNothing) {
  const TemporaryDirectory directory;
  LocalSystem system({.directory = directory.path()});
  ASSERT_OK(system.StartCoordinator());
  ASSERT_OK(WriteFileAtomically(directory / "wrong.yaml", GetParam().yaml));
  for (const char* verb : {"plan", "submit"}) {
    const CommandResult result = system.Assay({"sweep", verb, directory / "wrong.yaml"});
    EXPECT_EQ(result.exit_code, 65) << verb << ": " << result.err;
    EXPECT_NE(result.err.find(GetParam().says), std::string::npos) << result.err;
    EXPECT_EQ(result.out, "") << verb;
  }
  const CommandResult sweeps = system.Assay({"sweep", "ls", "--json"});
  EXPECT_EQ(sweeps.exit_code, 0);
  EXPECT_EQ(sweeps.out.find("sweep-"), std::string::npos) << sweeps.out;
}

INSTANTIATE_TEST_SUITE_P(
    Table, WrongSpecTest,
    ::testing::Values(
        WrongSpec{"UnknownKey", "name: x\nmodels: [{name: tiny-qwen2-1m}]\nmetods: []\n",
                  "wrong.yaml:3:1"},
        WrongSpec{"NearestName", "name: x\nmodels: [{name: tiny-qwen2-1m}]\nmetods: []\n",
                  "did you mean 'methods'?"},
        WrongSpec{"NoModels", "name: x\nbenchmarks: [arith500]\n", "models"},
        WrongSpec{"UnknownModel", "name: x\nmodels: [{name: no-such}]\nbenchmarks: [arith500]\n",
                  "no-such"},
        WrongSpec{"UnknownBenchmark",
                  "name: x\nmodels: [{name: tiny-qwen2-1m}]\nbenchmarks: [arith50]\n",
                  "did you mean 'arith500'?"},
        WrongSpec{"UnknownMethod",
                  "name: x\nmodels: [{name: tiny-qwen2-1m}]\nbenchmarks: [arith500]\n"
                  "methods: [{method: rtm, bits: 4-16-16}]\n",
                  "did you mean 'rtn'?"},
        WrongSpec{"WrongBits",
                  "name: x\nmodels: [{name: tiny-qwen2-1m}]\nbenchmarks: [arith500]\n"
                  "methods: [{method: rtn, bits: 4-16}]\n",
                  "4-16"},
        WrongSpec{"WrongType",
                  "name: x\nmodels: [{name: tiny-qwen2-1m}]\nbenchmarks: [arith500]\n"
                  "sampling: {temperature: warm}\n",
                  "wrong.yaml:4:25"},
        WrongSpec{"OutOfRange",
                  "name: x\nmodels: [{name: tiny-qwen2-1m}]\nbenchmarks: [arith500]\n"
                  "sampling: {top_p: 1.5}\n",
                  "top_p"},
        WrongSpec{
            "SeveralErrorsALineEach",
            "name: demo\ndevice: cdua\nmodels: [tiny-qwen2-1m]\nbenchmarks: [arith500]\nseed: 1\n",
            "must be cpu or cuda\nwrong.yaml:5:1"},
        WrongSpec{"NotYaml", "name: [x\n", "wrong.yaml"}, WrongSpec{"Empty", "", "wrong.yaml"}),
    [](const auto& instance) { return std::string(instance.param.name); });

struct WrongArguments {
  const char* name;
  std::vector<std::string> argv;
  int exit_code;
  const char* says;
};

class WrongArgumentsTest : public ::testing::TestWithParam<WrongArguments> {};

TEST_P(WrongArgumentsTest, EndWithOneLineAndTheRightCode) {
  std::vector<std::string> argv = GetParam().argv;
  argv.insert(argv.begin(), BinaryPath("assay"));
  // Nothing listens on port 1.
  const CommandResult result =
      RunProgram(argv, "", {"ASSAY_COORDINATOR=127.0.0.1:1", "NO_COLOR=1"});
  EXPECT_EQ(result.exit_code, GetParam().exit_code) << result.err;
  EXPECT_NE(result.err.find(GetParam().says), std::string::npos) << result.err;
  EXPECT_EQ(NumErrorLines(result.err), 1) << result.err;
}

INSTANTIATE_TEST_SUITE_P(
    Table, WrongArgumentsTest,
    ::testing::Values(
        WrongArguments{"UnknownNoun", {"sweeep", "ls"}, 64, "sweeep"},
        WrongArguments{"UnknownFlag", {"sweep", "ls", "--nope"}, 64, "--nope"},
        WrongArguments{"MissingSpec", {"sweep", "submit"}, 64, "SPEC"},
        WrongArguments{"NoSuchSpec", {"sweep", "submit", "/no/such.yaml"}, 66, "/no/such.yaml"},
        WrongArguments{
            "BelowItsBound", {"sweep", "ls", "--limit", "-3"}, 64, "--limit: -3 is not >= 0"},
        WrongArguments{"NoCoordinator", {"sweep", "ls"}, 69, "127.0.0.1:1"},
        WrongArguments{
            "NoDatabase", {"query", "SELECT 1", "--db", "/no/such.db"}, 66, "/no/such.db"},
        WrongArguments{"UnknownFlagOfTheGrader", {"grade", "--nope"}, 64, "--nope"},
        WrongArguments{"NoCases", {"grade", "/no/such.jsonl"}, 66, "/no/such.jsonl"},
        WrongArguments{"NoModel", {"generate", "/no/such/model", "hello"}, 66, "/no/such/model"},
        WrongArguments{"BadBits",
                       {"quantize", SourcePath(kTinyModel), "--method", "rtn", "--bits", "9-16-16",
                        "--out", "/tmp/assay-never-made"},
                       65,
                       "9-16-16"}),
    [](const auto& instance) { return std::string(instance.param.name); });

// A copy of the tiny model with one file replaced.
void CopyModel(const std::string& to) {
  std::filesystem::copy(SourcePath(kTinyModel), to, std::filesystem::copy_options::recursive);
}

struct WrongModel {
  const char* name;
  const char* file;
  const char* content;
  const char* says;
};

class WrongModelTest : public ::testing::TestWithParam<WrongModel> {};

TEST_P(WrongModelTest, IsRefusedNamingTheFile) {
  const TemporaryDirectory directory;
  CopyModel(directory / "m");
  ASSERT_OK(WriteFileAtomically(directory / "m/" + GetParam().file, GetParam().content));
  const CommandResult result =
      RunProgram({BinaryPath("assay"), "generate", directory / "m", "hello", "--max-tokens", "4"});
  EXPECT_EQ(result.exit_code, 65) << result.err;
  EXPECT_NE(result.err.find(GetParam().says), std::string::npos) << result.err;

  const CommandResult quantize =
      RunProgram({BinaryPath("assay"), "quantize", directory / "m", "--method", "rtn", "--bits",
                  "4-16-16", "--out", directory / "out"});
  if (quantize.exit_code != 0) {
    EXPECT_FALSE(std::filesystem::exists(directory / "out")) << "half an artifact was left";
  }
}

INSTANTIATE_TEST_SUITE_P(
    Table, WrongModelTest,
    ::testing::Values(WrongModel{"ConfigIsNoJson", "config.json", "{", "config.json"},
                      WrongModel{"UnknownArchitecture", "config.json",
                                 R"({"architectures":["GPT2LMHeadModel"],"model_type":"gpt2"})",
                                 "GPT2LMHeadModel"},
                      WrongModel{"TruncatedWeights", "model.safetensors", "\x08",
                                 "model.safetensors"},
                      WrongModel{"HugeHeader", "model.safetensors",
                                 "\xff\xff\xff\xff\xff\xff\xff\x7f", "model.safetensors"},
                      WrongModel{"TokenizerIsNoJson", "tokenizer.json", "[1,", "tokenizer.json"},
                      WrongModel{"UnknownTokenizer", "tokenizer.json",
                                 R"({"model":{"type":"Unigram","vocab":[]}})", "Unigram"}),
    [](const auto& instance) { return std::string(instance.param.name); });

// A level that is none once silenced the log.
TEST(WrongFlagTest, ACoordinatorRefusesALogLevelThatIsNone) {
  const TemporaryDirectory directory;
  const CommandResult result = RunProgram(
      {BinaryPath("assay-coordinator"), "--data", directory / "data", "--log-level", "inf"});
  EXPECT_EQ(result.exit_code, 64) << result.err;
  EXPECT_NE(result.err.find("--log-level: inf not in {trace,"), std::string::npos) << result.err;
  EXPECT_EQ(NumErrorLines(result.err), 1) << result.err;
  EXPECT_FALSE(std::filesystem::exists(directory / "data"));
}

TEST(WrongDatabaseTest, AForeignFileIsRefused) {
  const TemporaryDirectory directory;
  ASSERT_OK(WriteFileAtomically(directory / "x.db", "this is no database, it only looks like one"));
  const CommandResult result =
      RunProgram({BinaryPath("assay"), "query", "SELECT 1", "--db", directory / "x.db"});
  EXPECT_EQ(result.exit_code, 65) << result.err;
  EXPECT_NE(result.err.find("x.db"), std::string::npos) << result.err;
}

TEST(WrongDatabaseTest, ACoordinatorRefusesAForeignFileAndLeavesItAlone) {
  const TemporaryDirectory directory;
  ASSERT_OK(MakeDirectories(directory / "data"));
  const std::string content(4096, 'x');
  ASSERT_OK(WriteFileAtomically(directory / "data/assay.db", content));
  const CommandResult result = RunProgram(
      {BinaryPath("assay-coordinator"), "--data", directory / "data", "--listen", "127.0.0.1:0"});
  EXPECT_EQ(result.exit_code, 65) << result.err;
  ASSERT_OK_AND_ASSIGN(const std::string after, ReadFile(directory / "data/assay.db"));
  EXPECT_EQ(after, content);
}

TEST(WrongQueryTest, WritesAreRefused) {
  const TemporaryDirectory directory;
  LocalSystem system({.directory = directory.path()});
  ASSERT_OK(system.StartCoordinator());
  for (const char* sql :
       {"DELETE FROM sample", "ATTACH '/tmp/x.db' AS x", "PRAGMA journal_mode=DELETE",
        "CREATE TABLE t(x)", "SELECT 1; DROP TABLE sample", "SELECT load_extension('x')", ""}) {
    EXPECT_EQ(system.Assay({"query", sql}).exit_code, 65) << sql;
    EXPECT_EQ(system.Assay({"query", sql, "--db", system.database()}).exit_code, 65) << sql;
  }
}

}  // namespace
}  // namespace assay
