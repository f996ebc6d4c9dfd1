// What people type wrong: one line that names it and says what to do, and the right exit code.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iomanip>
#include <sstream>
#include <string>
#include <vector>

#include "tests/testing/local_system.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::cli {
namespace {

using testing::BinaryPath;
using testing::CommandResult;
using ::testing::HasSubstr;
using testing::RunProgram;
using testing::SourcePath;
using testing::TemporaryDirectory;

struct Wrong {
  const char* name;
  std::vector<std::string> argv;
  int exit_code;
  const char* says;
};

class WrongArgumentsTest : public ::testing::TestWithParam<Wrong> {};

TEST_P(WrongArgumentsTest, EndWithOneLineAndTheRightCode) {
  std::vector<std::string> argv = GetParam().argv;
  argv.insert(argv.begin(), BinaryPath("assay"));
  // Nothing listens on port 1.
  const CommandResult result = RunProgram(argv, "", {"ASSAY_COORDINATOR=127.0.0.1:1"});
  EXPECT_EQ(result.exit_code, GetParam().exit_code) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, HasSubstr(GetParam().says));
  EXPECT_TRUE(result.err.starts_with("assay: ")) << result.err;
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
}

INSTANTIATE_TEST_SUITE_P(
    Table, WrongArgumentsTest,
    ::testing::Values(
        Wrong{"Nothing", {}, 64, "'assay' needs a command: demo, sweep"},
        Wrong{"UnknownNoun", {"sweeep", "ls"}, 64, "(did you mean 'sweep'?)"},
        Wrong{"UnknownVerb", {"sweep", "sbmit"}, 64, "(did you mean 'submit'?)"},
        Wrong{"NoVerb", {"sweep"}, 64, "'assay sweep' needs a command: plan, submit"},
        Wrong{"UnknownFlag", {"sweep", "ls", "--jsn"}, 64, "(did you mean '--json'?)"},
        Wrong{"NoSpec", {"sweep", "submit"}, 64, "SPEC is required; see `assay sweep submit"},
        Wrong{"TooMany", {"sweep", "show", "a", "b"}, 64, "not expected: b"},
        Wrong{"NotANumber", {"sample", "show", "x"}, 64, "SAMPLE = x: not a number"},
        Wrong{"OneOfTwo", {"sample", "ls"}, 64, "either SWEEP or --cell"},
        Wrong{"BothOfTwo", {"sample", "ls", "s", "--cell", "1"}, 64, "either SWEEP or --cell"},
        Wrong{"WrongGroup", {"results", "s", "--by", "colour"}, 64, "colour not in {level"},
        Wrong{"WrongFormat", {"results", "s", "-o", "xls"}, 64, "xls not in {table"},
        Wrong{"NoAddress", {"sweep", "ls", "--coordinator", "here"}, 64, "give HOST:PORT"},
        Wrong{"WrongPort", {"sweep", "ls", "--coordinator", "h:99999"}, 64, "give HOST:PORT"},
        Wrong{"WrongShell", {"completion", "tcsh"}, 64, "tcsh not in {bash,zsh,fish}"},
        Wrong{"Slots", {"demo", "--slots", "0"}, 64, "--slots"},
        Wrong{"BenchOfWhat", {"bench"}, 64, "'assay bench' needs a command: engine"},
        Wrong{"BenchOfElse", {"bench", "enginee"}, 64, "(did you mean 'engine'?)"},
        Wrong{"NoPrompt", {"generate", "m"}, 64, "PROMPT is required; see `assay generate --help`"},
        Wrong{"FlagOfAnother", {"score", "m", "--thread", "2"}, 64, "(did you mean '--threads'?)"},
        Wrong{"NoModelThere", {"score", "/no/model"}, 66, "/no/model: no such model folder"},
        Wrong{"FlagOfGrade", {"grade", "--gradr", "x"}, 64, "(did you mean '--grader'?)"},
        Wrong{"MissingSpec", {"sweep", "plan", "/no/such.yaml"}, 66, "/no/such.yaml"},
        Wrong{"SpecIsAFolder", {"sweep", "plan", "/tmp"}, 65, "/tmp: is a directory"},
        Wrong{"SlotsOfAGpu", {"demo", "--device", "cuda", "--slots", "2"}, 65, "--slots 2 is of"},
        Wrong{"MissingDemoSpec", {"demo", "--data", "/tmp", "--spec", "/no.yaml"}, 66, "/no.yaml"},
        Wrong{"MissingDatabase", {"query", "SELECT 1", "--db", "/no/such.db"}, 66, "/no/such.db"},
        Wrong{"NoCoordinator", {"sweep", "ls"}, 69, "cannot reach a coordinator at 127.0.0.1:1"},
        Wrong{"NoCoordinatorToWatch", {"sweep", "watch", "s"}, 69, "ASSAY_COORDINATOR"},
        Wrong{"NoCoordinatorForTop", {"top"}, 69, "--coordinator HOST:PORT"},
        Wrong{"NoCoordinatorForQuery", {"query", "SELECT 1"}, 69, "assay-coordinator --data DIR"}),
    [](const auto& instance) { return std::string(instance.param.name); });

// The other programs say it as well: their own name, the command that was meant, the nearest flag.
TEST(ProgramTest, EveryProgramNamesTheRemedy) {
  const auto error_of = [](std::vector<std::string> argv) {
    argv[0] = BinaryPath(argv[0]);
    const CommandResult result = RunProgram(argv);
    EXPECT_EQ(result.exit_code, 64) << result.err;
    return result.err;
  };
  EXPECT_EQ(error_of({"assay-coordinator"}),
            "assay-coordinator: --data is required; see `assay-coordinator --help`\n");
  EXPECT_THAT(error_of({"assay-coordinator", "--data", "x", "--listn=:1"}),
              HasSubstr("(did you mean '--listen'?)"));
  EXPECT_EQ(error_of({"assay-coordinator", "token", "--data", "x", "crate"}),
            "assay-coordinator: 'assay-coordinator token crate' is no command (did you mean "
            "'create'?); the commands are create\n");
  EXPECT_THAT(error_of({"assay-worker", "--models", "x", "--spol", "y"}),
              HasSubstr("see `assay-worker --help`"));
  EXPECT_THAT(error_of({"assay-runner", "score"}),
              HasSubstr("assay-runner: MODEL is required; see `assay-runner score --help`"));
  EXPECT_THAT(error_of({"assay-grader", "grad"}), HasSubstr("(did you mean 'grade'?)"));
}

TEST(ProgramTest, SaysWhatItIs) {
  const CommandResult version = RunProgram({BinaryPath("assay"), "--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_THAT(version.out, HasSubstr("assay "));
  EXPECT_THAT(version.out, HasSubstr("commit "));
}

TEST(ProgramTest, HelpOfEveryCommandIsThere) {
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{},
                                             {"demo"},
                                             {"sweep"},
                                             {"sweep", "submit"},
                                             {"results"},
                                             {"sample", "diff"},
                                             {"compare"},
                                             {"query"},
                                             {"worker", "drain"},
                                             {"generate"},
                                             {"bench", "engine"},
                                             {"grade"},
                                             {"top"},
                                             {"completion"}}) {
    std::vector<std::string> argv = {BinaryPath("assay")};
    argv.insert(argv.end(), command.begin(), command.end());
    argv.push_back("--help");
    const CommandResult help = RunProgram(argv);
    EXPECT_EQ(help.exit_code, 0) << ::testing::PrintToString(command);
    EXPECT_THAT(help.out, HasSubstr("Usage: assay"));
    EXPECT_EQ(help.err, "");
  }
}

TEST(CompletionTest, TheScriptsAreValidWhereTheirShellIsInstalled) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const CommandResult script = RunProgram({BinaryPath("assay"), "completion", shell});
    ASSERT_EQ(script.exit_code, 0) << script.err;
    EXPECT_THAT(script.out, HasSubstr("submit"));
    const CommandResult check = RunProgram({shell, "-n", "/dev/stdin"}, script.out);
    if (check.err.find("cannot start") != std::string::npos) continue;  // no such shell here
    EXPECT_EQ(check.exit_code, 0) << shell << ": " << check.err;
  }
}

// What bash offers for a line whose last word is being typed.
std::string OfferedByBash(const std::string& words) {
  const CommandResult script = RunProgram({BinaryPath("assay"), "completion", "bash"});
  const std::string program = script.out + "\nCOMP_WORDS=(" + words + ")\n" +
                              "COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_assay\n" +
                              "echo \"${COMPREPLY[@]}\"\n";
  return RunProgram({"bash", "-s"}, program, {"PATH=/usr/bin:/bin"}).out;
}

TEST(CompletionTest, BashOffersVerbsFlagsAndValues) {
  EXPECT_EQ(OfferedByBash("assay swe"), "sweep\n");
  EXPECT_EQ(OfferedByBash("assay sweep re"), "resume retry\n");
  EXPECT_EQ(OfferedByBash("assay results --b"), "--by\n");
  EXPECT_EQ(OfferedByBash("assay results --by ''"), "level subject length none\n");
  EXPECT_EQ(OfferedByBash("assay results -o m"), "md\n");
  EXPECT_EQ(OfferedByBash("assay generate --max-t"), "--max-tokens\n");
  EXPECT_EQ(OfferedByBash("assay bench en"), "engine\n");
  EXPECT_EQ(OfferedByBash("assay bench engine --len"), "--lengths\n");
  EXPECT_EQ(OfferedByBash("assay demo --slots ''"), "\n");
}

// The commands in the documents' code blocks: "assay sample ls ID   # what it does".
std::vector<std::string> DocumentedCommands() {
  std::vector<std::string> commands;
  for (const char* document :
       {"README.md", "docs/operations.md", "docs/security.md", "examples/README.md"}) {
    std::ifstream file(SourcePath(document));
    bool in_code = false;
    for (std::string line; std::getline(file, line);) {
      if (line.starts_with("```")) in_code = !in_code;
      if (in_code && line.starts_with("assay ")) {
        commands.push_back(line.substr(0, line.find(" #")));
      }
    }
  }
  return commands;
}

// Words as a shell splits them, with something in the place of placeholders.
std::vector<std::string> Words(const std::string& command) {
  std::vector<std::string> words;
  std::istringstream stream(command);
  for (std::string word; stream >> std::quoted(word);) {
    std::erase_if(word, [](char c) { return c == '[' || c == ']'; });  // what is optional, too
    words.push_back(word == "SAMPLE" || word == "CELL" ? "1" : word);
  }
  return words;
}

TEST(DocumentsTest, TheirCommandsExist) {
  const std::vector<std::string> commands = DocumentedCommands();
  EXPECT_GE(commands.size(), 10u);
  for (const std::string& command : commands) {
    std::vector<std::string> argv = Words(command);
    if (argv[1] == "demo") continue;  // it would run
    argv[0] = BinaryPath("assay");
    const TemporaryDirectory nowhere;
    const CommandResult result =
        RunProgram(argv, "", {"ASSAY_COORDINATOR=127.0.0.1:1", "HOME=" + nowhere.path()});
    EXPECT_NE(result.exit_code, 64) << command << "\n" << result.err;
  }
}

}  // namespace
}  // namespace assay::cli
