#include "cli/command_line.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/exit_codes.h"
#include "base/names.h"
#include "base/status.h"
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

std::vector<std::string> NamesUnder(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (!command->get_name().empty()) names.push_back(command->get_name());
  }
  return names;
}

// The deepest command that the arguments name, and the first word after it that should have been a
// command and is none (empty when there is no such word).
struct Named {
  const CLI::App* command;
  std::string path;
  std::string unknown;
};

Named FindCommand(const CLI::App& app, int argc, char** argv) {
  Named named{&app, "assay", ""};
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const std::vector<std::string> names = NamesUnder(*named.command);
    if (names.empty()) break;
    if (word.starts_with('-')) continue;
    if (std::find(names.begin(), names.end(), word) == names.end()) {
      named.unknown = word;
      break;
    }
    named.command = named.command->get_subcommand(word);
    named.path += " " + word;
  }
  return named;
}

std::vector<std::string> FlagsOf(const CLI::App& command) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
    for (const std::string& name : option->get_snames()) flags.push_back("-" + name);
  }
  return flags;
}

std::string Join(const std::vector<std::string>& words) {
  return fmt::format("{}", fmt::join(words, ", "));
}

// CLI11's errors, as one line with a remedy.
std::string DescribeUsageError(const CLI::App& app, const CLI::ParseError& error, int argc,
                               char** argv) {
  const Named named = FindCommand(app, argc, argv);
  const std::vector<std::string> names = NamesUnder(*named.command);
  if (!named.unknown.empty()) {
    return fmt::format("'{} {}' is no command{}; the commands are {}", named.path, named.unknown,
                       DidYouMean(named.unknown, names), Join(names));
  }
  if (!names.empty() && dynamic_cast<const CLI::ExtrasError*>(&error) == nullptr) {
    return fmt::format("'{}' needs a command: {}", named.path, Join(names));
  }
  std::string suggestion;
  const std::vector<std::string> flags = FlagsOf(*named.command);
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr) {
    for (int i = 1; i < argc && suggestion.empty(); ++i) {
      std::string flag = argv[i];
      if (!flag.starts_with("--")) continue;
      flag = flag.substr(0, flag.find('='));
      if (std::find(flags.begin(), flags.end(), flag) != flags.end()) continue;
      suggestion = DidYouMean(flag, flags);
    }
  }
  std::string what = error.what();
  if (dynamic_cast<const CLI::ConversionError*>(&error) != nullptr) what += ": not a number";
  while (!what.empty() && (what.back() == '\n' || what.back() == '.')) what.pop_back();
  return fmt::format("{}{}; see `{} --help`", what, suggestion, named.path);
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
