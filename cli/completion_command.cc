// assay completion bash|zsh|fish.
#include "base/exit_codes.h"
#include "cli/commands.h"
#include "cli/completion.h"

namespace assay::cli {

void AddCompletionCommand(CLI::App& app, Session* session) {
  CLI::App* command = app.add_subcommand(
      "completion", "Print a completion script: source <(assay completion bash)");
  const auto shell = std::make_shared<std::string>();
  command->add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}))
      ->type_name("");
  SetAction(command, session, [shell, tree = &app]() -> absl::StatusOr<int> {
    Print(CompletionScript(*tree, *shell == "zsh"    ? Shell::kZsh
                                  : *shell == "fish" ? Shell::kFish
                                                     : Shell::kBash));
    return kExitOk;
  });
}

}  // namespace assay::cli
