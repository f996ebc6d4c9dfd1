// The commands that another program does: generate, quantize, tokenize, score and bench belong to
// the engine (assay-runner), grade to the graders (assay-grader). This program becomes the other
// one, with the same arguments, so there is one place where each is documented and parsed. What
// stands here serves the list in --help and completion.
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "cli/commands.h"

namespace assay::cli {
namespace {

struct EngineCommand {
  const char* name;
  const char* program;
  const char* description;
  std::vector<const char*> flags;
  const char* verb = nullptr;  // what stands between the command and its flags
};

const std::vector<EngineCommand>& EngineCommands() {
  static const std::vector<EngineCommand> commands = {
      {"generate",
       "assay-runner",
       "Answer a prompt: assay generate MODEL \"prompt\"",
       {"--system", "--raw", "--json", "--max-tokens", "--max-model-len", "--temperature",
        "--top-p", "--top-k", "--seed", "--device", "--threads"}},
      {"quantize",
       "assay-runner",
       "Make a quantized model: assay quantize MODEL --method rtn --bits 4-16-16 --out DIR",
       {"--method", "--bits", "--weight-bits", "--activation-bits", "--kv-bits", "--group-size",
        "--symmetric", "--pre-bias", "--virtual-shards", "--calibration", "--out", "--threads"}},
      {"tokenize",
       "assay-runner",
       "Token ids of texts: JSON lines {\"text\"} in, {\"ids\"} out",
       {"--special"}},
      {"score",
       "assay-runner",
       "Teacher-forced log-probabilities: {\"ids\"} in, {\"target_logprobs\"} out",
       {"--device", "--threads"}},
      {"bench",
       "assay-runner",
       "Measure a model's shape on a GPU: assay bench engine MODEL --random-weights",
       {"--random-weights", "--weight-bits", "--gpu", "--batch", "--context", "--prefill",
        "--steps", "--lengths", "--lanes", "--kv-cache-gib", "--swap-gib", "--look-ahead",
        "--prompt-step-cost", "--json"},
       "engine"},
      {"grade",
       "assay-grader",
       "Grade answers: JSON lines {\"gold\", \"prediction\"} in, verdicts out",
       {"--grader"}},
  };
  return commands;
}

const EngineCommand* Find(std::string_view name) {
  for (const EngineCommand& command : EngineCommands()) {
    if (name == command.name) return &command;
  }
  return nullptr;
}

}  // namespace

bool IsEngineCommand(const std::string& name) { return Find(name) != nullptr; }

absl::Status ExecEngineCommand(int argc, char** argv) {
  const EngineCommand* command = Find(argv[1]);
  ASSAY_CHECK(command != nullptr);
  const std::string program = ProgramDirectory() + "/" + command->program;
  std::vector<char*> arguments(argv + 1, argv + argc);
  // By its name here, which then stands in its help and its errors.
  char name[] = "assay";
  arguments.insert(arguments.begin(), name);
  arguments.push_back(nullptr);
  ::execv(program.c_str(), arguments.data());
  if (errno == ENOENT) {
    return NotFound("{}: this program does `assay {}` and is not beside assay; build or install {}",
                    program, command->name, command->program);
  }
  return Unavailable("{}: cannot be run: {}", program, std::strerror(errno));
}

void AddEngineCommands(CLI::App& app, Session*) {
  for (const EngineCommand& command : EngineCommands()) {
    CLI::App* entry = app.add_subcommand(command.name, command.description);
    if (command.verb != nullptr) entry = entry->add_subcommand(command.verb, command.description);
    for (const char* flag : command.flags) entry->add_flag(flag);
  }
}

}  // namespace assay::cli
