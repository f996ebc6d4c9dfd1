// assay-grader: verdicts on responses, in a process of its own because responses are untrusted.
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <fstream>
#include <iostream>

#include "base/exit_codes.h"
#include "base/log.h"
#include "base/usage_error.h"
#include "base/version.h"
#include "worker/grading/grader.h"
#include "worker/grading/serve.h"

namespace assay::worker {
namespace {

constexpr int64_t kMemoryLimitBytes = int64_t{1} << 30;

int GradeFileOrStdin(const std::string& grader, const std::string& path) {
  if (path.empty() || path == "-") return GradeJsonLines(grader, std::cin, std::cout, std::cerr);
  std::ifstream file(path);
  if (!file) {
    std::cerr << program_invocation_short_name << ": " << path << ": cannot open\n";
    return kExitNotFound;
  }
  return GradeJsonLines(grader, file, std::cout, std::cerr);
}

int Main(int argc, char** argv) {
  CLI::App app("Grades responses of models.");
  app.name(program_invocation_short_name);
  app.set_version_flag("--version", Version());
  app.require_subcommand(1);
  CLI::App* serve = app.add_subcommand("serve", "answer requests on stdin and stdout (the agent)");
  CLI::App* grade = app.add_subcommand(
      "grade", "grade JSON lines {\"gold\", \"prediction\"} and print one verdict a line");
  std::string grader = "boxed_number";
  std::string file;
  grade->add_option("--grader", grader, "which grader")->capture_default_str();
  grade->add_option("FILE", file, "cases; stdin when left out or '-'");
  CLI::App* list = app.add_subcommand("ls", "the graders of this build");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return EndParsing(app, error, argc, argv);
  }
  InitLogging("assay-grader");
  ::signal(SIGPIPE, SIG_IGN);
  LimitProcess(kMemoryLimitBytes);
  if (*serve) return ServeGrades(STDIN_FILENO, STDOUT_FILENO);
  if (*list) {
    for (const std::string& name : GraderNames()) std::cout << name << "\n";
    return kExitOk;
  }
  std::ios::sync_with_stdio(false);
  return GradeFileOrStdin(grader, file);
}

}  // namespace
}  // namespace assay::worker

int main(int argc, char** argv) { return assay::worker::Main(argc, argv); }
