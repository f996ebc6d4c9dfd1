#include "cli/command_line.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/exit_codes.h"
#include "base/status.h"
#include "base/usage_error.h"
#include "base/version.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/output/text.h"

namespace assay::cli {
namespace {

constexpr char kFooter[] =
    "Results go to stdout and talk to stderr. Exit codes: 0 done, 1 failed, 64 wrong usage, 65 "
    "bad\n"
    "input, 66 not found, 69 no coordinator, 73 cannot create, 75 try again, 130 interrupted.\n"
    "`assay compare` ends with its verdict: 0 lossless, 1 risky, 2 undecided, 3 fair.";

int Fail(const std::string& message, int exit_code) {
  // A spec's errors come a line each.
  fmt::print(stderr, "assay: {}\n", SanitizeText(message));
  return exit_code;
}

std::string VersionText() {
  return fmt::format("assay {} (commit {}, {}, {})", Version(), GitCommit(), BuildType(),
                     Compiler());
}

int RunAction(const Session& session) {
  if (!session.action) return Fail("internal error: the command has no action", kExitFailure);
  const absl::StatusOr<int> result = session.action();
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    return Fail(fmt::format("cannot write to stdout: {}", std::strerror(errno)), kExitCantCreate);
  }
  if (result.ok()) return *result;
  if (Interrupted()) return Fail("interrupted", kExitInterrupted);
  return Fail(Message(result.status()), ExitCode(result.status()));
}

}  // namespace

std::unique_ptr<CLI::App> MakeCommandTree(Session* session) {
  auto app = std::make_unique<CLI::App>(
      "Assay: how few bits can a reasoning model be run in before its reasoning breaks?", "assay");
  app->require_subcommand(1);
  app->set_version_flag("--version", VersionText(), "Print version, commit and build");
  app->get_formatter()->column_width(34);
  AddDemoCommand(*app, session);
  AddSweepCommands(*app, session);
  AddResultsCommand(*app, session);
  AddSampleCommands(*app, session);
  AddCompareCommand(*app, session);
  AddQueryCommand(*app, session);
  AddDbCommands(*app, session);
  AddWorkerCommands(*app, session);
  AddTopCommand(*app, session);
  AddTokenCommands(*app, session);
  AddEngineCommands(*app, session);
  AddCompletionCommand(*app, session);
  app->footer(kFooter);  // last: a command made after it would inherit it
  return app;
}

int RunCommandLine(int argc, char** argv) {
  if (argc > 1 && IsEngineCommand(argv[1])) {
    const absl::Status status = ExecEngineCommand(argc, argv);
    return Fail(Message(status), ExitCode(status));
  }
  InstallInterruptHandlers();
  Session session;
  const auto app = MakeCommandTree(&session);
  try {
    app->parse(argc, argv);
  } catch (const CLI::Success& help_or_version) {
    return app->exit(help_or_version);
  } catch (const CLI::ParseError& error) {
    return Fail(DescribeUsageError(*app, error, argc, argv), kExitUsage);
  }
  return RunAction(session);
}

}  // namespace assay::cli
