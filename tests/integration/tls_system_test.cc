// The programs with TLS: certificates of deploy/certs.sh, tokens, a worker, the command line; and
// nothing secret where others on the machine could see it.
#include <gmock/gmock.h>

#include <filesystem>
#include <optional>

#include "base/file.h"
#include "tests/testing/certificates.h"
#include "tests/testing/local_system.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

class TlsSystemTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const CommandResult made = RunProgram({BinaryPath("assay-coordinator"), "token", "create",
                                           "--role", "admin", "--data", directory_ / "data"});
    ASSERT_EQ(made.exit_code, 0) << made.err;
    token_ = made.out.substr(0, made.out.find('\n'));
    ASSERT_THAT(token_, ::testing::StartsWith("assay_"));
    const std::string worker = certificates_.MakeWorker("w1");
    system_.emplace(LocalSystem::Options{
        .directory = directory_.path(),
        .coordinator_flags = {"--tls-cert", certificates_.server(), "--tls-key",
                              Certificates::KeyOf(certificates_.server()), "--tls-ca",
                              certificates_.ca()},
        .worker_flags = {"--tls-cert", worker, "--tls-key", Certificates::KeyOf(worker), "--tls-ca",
                         certificates_.ca()}});
    ASSERT_OK(system_->StartCoordinator());
  }

  CommandResult Assay(std::vector<std::string> args, const std::string& token) const {
    args.insert(args.begin(), BinaryPath("assay"));
    return RunProgram(args, "",
                      {"ASSAY_COORDINATOR=" + system_->address(),
                       "ASSAY_TLS_CA=" + certificates_.ca(), "ASSAY_TOKEN=" + token});
  }

  TemporaryDirectory directory_;
  Certificates certificates_{directory_ / "certs"};
  std::string token_;
  std::optional<LocalSystem> system_;
};

TEST_F(TlsSystemTest, AWorkerAndAPersonComeInAndNothingSecretShows) {
  ASSERT_OK(system_->StartWorker("w1", 1));
  const bool online = WaitUntil(
      [&] {
        return Assay({"worker", "ls"}, token_).out.find("online") != std::string::npos;
      },
      absl::Seconds(60));
  EXPECT_TRUE(online) << system_->Logs();

  const CommandResult made = Assay({"token", "create", "vera", "--role", "viewer"}, token_);
  ASSERT_EQ(made.exit_code, 0) << made.err;
  const std::string viewer = made.out.substr(0, made.out.find('\n'));
  EXPECT_EQ(Assay({"sweep", "ls"}, viewer).exit_code, 0);
  const CommandResult refused = Assay({"token", "ls"}, viewer);
  EXPECT_NE(refused.exit_code, 0);
  EXPECT_THAT(refused.err, HasSubstr("needs the role admin"));
  const CommandResult tokens = Assay({"token", "ls"}, token_);
  EXPECT_THAT(tokens.out, HasSubstr("vera"));

  // What another user of the machine sees: the processes' arguments, and logs that leak out.
  const std::string key = ReadFile(Certificates::KeyOf(certificates_.server())).value();
  std::string seen = system_->Logs() + tokens.out + refused.err;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    seen += ReadFile(entry.path() / "cmdline").value_or("");
  }
  EXPECT_THAT(seen, HasSubstr("--tls-key"));
  for (const std::string& secret : {token_, viewer, key}) {
    EXPECT_THAT(seen, Not(HasSubstr(secret)));
  }
  // The database has hashes only.
  const std::string database =
      ReadFile(system_->database()).value() + ReadFile(system_->database() + "-wal").value_or("");
  EXPECT_THAT(database, Not(HasSubstr(token_)));
  EXPECT_THAT(database, Not(HasSubstr(viewer)));
}

TEST_F(TlsSystemTest, AWorkerOfAnotherNameStaysOutside) {
  ASSERT_OK(system_->StartWorker("w2", 1));
  EXPECT_TRUE(WaitUntil(
      [&] { return system_->Logs().find("certificate is of worker 'w1'") != std::string::npos; },
      absl::Seconds(60)))
      << system_->Logs();
  EXPECT_THAT(Assay({"worker", "ls"}, token_).out, Not(HasSubstr("w2")));
}

TEST_F(TlsSystemTest, TheCommandLineSaysWhatIsMissing) {
  const std::string nobody = directory_ / "nobody";
  const CommandResult no_token =
      RunProgram({BinaryPath("assay"), "sweep", "ls", "--tls-ca", certificates_.ca(),
                  "--coordinator", system_->address()},
                 "", {"XDG_CONFIG_HOME=" + nobody});
  EXPECT_NE(no_token.exit_code, 0);
  EXPECT_THAT(no_token.err, HasSubstr("assay token create"));
  const CommandResult far_away =
      RunProgram({BinaryPath("assay"), "sweep", "ls", "--coordinator", "coordinator.example:7350"});
  EXPECT_THAT(far_away.err, HasSubstr("--tls-ca"));
  const std::string file = directory_ / "token";
  ASSERT_OK(WriteFileAtomically(file, token_ + "\n"));
  const std::vector<std::string> with_file = {
      BinaryPath("assay"), "sweep",        "ls", "--tls-ca",
      certificates_.ca(),  "--token-file", file, "--coordinator",
      system_->address()};
  EXPECT_THAT(RunProgram(with_file).err, HasSubstr("chmod 600"));
  fs::permissions(file, fs::perms(0600));
  const CommandResult good = RunProgram(with_file);
  EXPECT_EQ(good.exit_code, 0) << good.err;
}

TEST_F(TlsSystemTest, AWorkerDialsAnotherMachineWithTlsOnly) {
  const CommandResult result =
      RunProgram({BinaryPath("assay-worker"), "--models", directory_.path(), "--coordinator",
                  "coordinator.example:7350", "--spool", directory_ / "spool"});
  EXPECT_NE(result.exit_code, 0);
  EXPECT_THAT(result.err, HasSubstr("--tls-ca"));
}

}  // namespace
}  // namespace assay::testing
