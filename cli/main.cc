// assay: the command line of a sweep, from its plan to its table.
#include "cli/command_line.h"

int main(int argc, char** argv) { return assay::cli::RunCommandLine(argc, argv); }
