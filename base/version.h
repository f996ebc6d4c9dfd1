// What this build is: recorded in every cell's provenance and shown by --version.
#pragma once

#include <string>

namespace assay {

std::string Version();    // "0.1.0"
std::string GitCommit();  // the commit, "-dirty" when the tree had changes, "unknown" without git
std::string BuildType();  // "RelWithDebInfo", "Debug", ...
std::string Compiler();   // "g++ 12.2.0"

}  // namespace assay
