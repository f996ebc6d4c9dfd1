// Shell completion, generated from the tree of commands: nouns, verbs, flags, and the values of
// flags that have a list of them. Ids of sweeps and workers are asked from the coordinator (`assay
// sweep ls -q`) when TAB is pressed; without a coordinator there are none.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace assay::cli {

enum class Shell { kBash, kZsh, kFish };

// The script, for `source <(assay completion bash)` and the like.
std::string CompletionScript(const CLI::App& app, Shell shell);

}  // namespace assay::cli
