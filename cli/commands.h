// The commands: each function hangs one group into the tree. One file per group.
#pragma once

#include <CLI/CLI.hpp>

#include "cli/session.h"

namespace assay::cli {

void AddDemoCommand(CLI::App& app, Session* session);
void AddSweepCommands(CLI::App& app, Session* session);
void AddResultsCommand(CLI::App& app, Session* session);
void AddSampleCommands(CLI::App& app, Session* session);
void AddCompareCommand(CLI::App& app, Session* session);
void AddQueryCommand(CLI::App& app, Session* session);
void AddDbCommands(CLI::App& app, Session* session);
void AddWorkerCommands(CLI::App& app, Session* session);
void AddTopCommand(CLI::App& app, Session* session);
void AddTokenCommands(CLI::App& app, Session* session);
void AddEngineCommands(CLI::App& app, Session* session);
void AddCompletionCommand(CLI::App& app, Session* session);

// Whether `name` is a command that another program does with the same arguments (generate, grade,
// ...). Such a command line is not parsed here.
bool IsEngineCommand(const std::string& name);

// Becomes the program that does `argv[1]`, with the arguments from argv[1] on. Returns only when it
// cannot.
absl::Status ExecEngineCommand(int argc, char** argv);

}  // namespace assay::cli
