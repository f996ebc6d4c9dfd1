// What people type wrong, as one line with a remedy.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace assay {

// Of what `app`, which carries the program's name, threw while it parsed these arguments: "PROMPT
// is required; see `assay generate --help`". No newline at the end.
std::string DescribeUsageError(const CLI::App& app, const CLI::ParseError& error, int argc,
                               const char* const* argv);

// How a program ends that could not parse them, or was asked for help or its version, which is
// printed: its exit code. A usage error is one line on stderr with the program's name.
int EndParsing(const CLI::App& app, const CLI::ParseError& error, int argc,
               const char* const* argv);

}  // namespace assay
