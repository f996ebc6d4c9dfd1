// The program without its main: parses, runs, and turns every failure into one line and an exit
// code.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>

#include "cli/session.h"

namespace assay::cli {

// The whole tree of commands. `session` outlives it.
std::unique_ptr<CLI::App> MakeCommandTree(Session* session);

// Runs `assay ARGS...`; returns the exit code (base/exit_codes.h).
int RunCommandLine(int argc, char** argv);

}  // namespace assay::cli
