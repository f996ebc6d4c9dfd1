#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/address.h"
#include "base/exit_codes.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/names.h"
#include "base/subprocess.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay {
namespace {

using testing::IsError;
using testing::TemporaryDirectory;

// FIPS 180-2, appendix B.1.
TEST(Sha256Test, AgreesWithThePublishedVector) {
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256Test, ComparesWholeTexts) {
  EXPECT_TRUE(EqualInConstantTime("secret", "secret"));
  EXPECT_FALSE(EqualInConstantTime("secret", "secreT"));
  EXPECT_FALSE(EqualInConstantTime("secret", "secret "));
  EXPECT_TRUE(EqualInConstantTime("", ""));
}

TEST(RandomHexTest, HasTheLengthAskedForAndIsNeverTheSame) {
  EXPECT_EQ(RandomHex(32).size(), 64u);
  EXPECT_EQ(RandomHex(32).find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_NE(RandomHex(32), RandomHex(32));
}

TEST(AddressTest, LoopbackIsThisMachineAndNothingElse) {
  EXPECT_TRUE(IsLoopbackAddress("127.0.0.1:0"));
  EXPECT_TRUE(IsLoopbackAddress("127.8.9.1:7350"));
  EXPECT_TRUE(IsLoopbackAddress("localhost:7350"));
  EXPECT_TRUE(IsLoopbackAddress("[::1]:7350"));
  EXPECT_TRUE(IsLoopbackAddress("unix:/run/assay.sock"));
  EXPECT_FALSE(IsLoopbackAddress("[::]:7350"));
  EXPECT_FALSE(IsLoopbackAddress("192.168.1.2:7350"));
  EXPECT_FALSE(IsLoopbackAddress("127.0.0.1.example.org:7350"));
  EXPECT_FALSE(IsLoopbackAddress(""));
}

TEST(ReadSecretFileTest, RefusesWhatOthersMayRead) {
  const TemporaryDirectory directory;
  const std::string path = directory / "key";
  ASSERT_OK(WriteFileAtomically(path, "secret"));
  std::filesystem::permissions(path, std::filesystem::perms(0644));
  EXPECT_THAT(ReadSecretFile(path), IsError(absl::StatusCode::kFailedPrecondition, "chmod 600"));
  std::filesystem::permissions(path, std::filesystem::perms(0600));
  ASSERT_OK_AND_ASSIGN(const std::string secret, ReadSecretFile(path));
  EXPECT_EQ(secret, "secret");
}

TEST(Sha256Test, FieldsDoNotRunTogether) {
  EXPECT_NE(Hash64({"ab", "c"}), Hash64({"a", "bc"}));
  EXPECT_EQ(Hash64({"ab", "c"}), Hash64({"ab", "c"}));
}

TEST(IdsTest, TwoIdsDiffer) { EXPECT_NE(RandomId("sweep"), RandomId("sweep")); }

TEST(FileTest, AtomicWriteReplacesTheWholeContent) {
  const TemporaryDirectory directory;
  ASSERT_OK(WriteFileAtomically(directory / "f", "a long first content"));
  ASSERT_OK(WriteFileAtomically(directory / "f", "second"));
  ASSERT_OK_AND_ASSIGN(const std::string content, ReadFile(directory / "f"));
  EXPECT_EQ(content, "second");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory.path()), {}), 1);
}

TEST(FileTest, ReadErrorsNameThePathAndTheLimit) {
  const TemporaryDirectory directory;
  EXPECT_THAT(ReadFile(directory / "none"), IsError(absl::StatusCode::kNotFound, "none"));
  EXPECT_THAT(ReadFile(directory.path()),
              IsError(absl::StatusCode::kInvalidArgument, "is a directory"));
  ASSERT_OK(WriteFileAtomically(directory / "f", "12345"));
  EXPECT_THAT(ReadFile(directory / "f", 4), IsError(absl::StatusCode::kInvalidArgument, "limit"));
}

TEST(NamesTest, SuggestsOnlyWhatIsNear) {
  const std::vector<std::string> known = {"methods", "models", "benchmarks"};
  EXPECT_EQ(NearestName("metods", known), "methods");
  EXPECT_EQ(NearestName("sampling", known), "");
  EXPECT_EQ(DidYouMean("benchmark", known), " (did you mean 'benchmarks'?)");
}

TEST(SubprocessTest, PipesCarryBothWaysAndTheExitStatusIsTold) {
  ASSERT_OK_AND_ASSIGN(
      auto process,
      Subprocess::Start(
          {.argv = {"cat"}, .environment = {}, .pipe_stdin = true, .pipe_stdout = true}));
  ASSERT_EQ(::write(process->stdin_fd(), "hello", 5), 5);
  process->CloseStdin();
  char buffer[16];
  EXPECT_EQ(::read(process->stdout_fd(), buffer, sizeof buffer), 5);
  const std::optional<int> status = process->Wait(absl::Seconds(10));
  ASSERT_TRUE(status.has_value());
  EXPECT_EQ(DescribeWaitStatus(*status), "exit status 0");
}

TEST(SubprocessTest, AMissingProgramIsAnErrorAtStart) {
  EXPECT_THAT(Subprocess::Start({.argv = {"/no/such/program"}}),
              IsError(absl::StatusCode::kNotFound, "/no/such/program"));
}

TEST(SubprocessTest, StopKillsAChildThatIgnoresTerm) {
  ASSERT_OK_AND_ASSIGN(
      auto process,
      Subprocess::Start({.argv = {"sh", "-c", "trap '' TERM; sleep 60 & wait; sleep 60"}}));
  absl::Duration grace = absl::Milliseconds(100);
  process->Stop(grace);
  EXPECT_FALSE(process->running());
}

TEST(ExitCodesTest, EachKindOfErrorHasItsCode) {
  EXPECT_EQ(ExitCode(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCode(InvalidArgument("x")), 65);
  EXPECT_EQ(ExitCode(Unavailable("x")), 69);
}

class LogLevelTest : public ::testing::TestWithParam<std::pair<const char*, const char*>> {
 protected:
  ~LogLevelTest() override {
    unsetenv("ASSAY_LOG");
    spdlog::set_default_logger(before_);
    spdlog::drop("log-level-test");
  }
  const std::shared_ptr<spdlog::logger> before_ = spdlog::default_logger();
};

TEST_P(LogLevelTest, TheEnvironmentOverridesItWithALevelAlone) {
  const auto [wanted, level] = GetParam();
  setenv("ASSAY_LOG", wanted, /*replace=*/1);
  InitLogging("log-level-test", "warn");
  EXPECT_EQ(spdlog::get_level(), spdlog::level::from_str(level)) << wanted;
}

INSTANTIATE_TEST_SUITE_P(Levels, LogLevelTest,
                         ::testing::Values(std::pair("debug", "debug"), std::pair("off", "off"),
                                           std::pair("inf", "warn"), std::pair("", "warn")));

}  // namespace
}  // namespace assay
