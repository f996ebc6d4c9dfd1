// Exit codes of every program, so that scripts can tell one failure from
// another.
#pragma once

#include <absl/status/status.h>

namespace assay {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;        // anything without a code of its own
inline constexpr int kExitUsage = 64;         // the command line is wrong
inline constexpr int kExitBadInput = 65;      // a spec, model, dataset or database is wrong
inline constexpr int kExitNotFound = 66;      // a named sweep, sample, file does not exist
inline constexpr int kExitUnavailable = 69;   // the coordinator cannot be reached
inline constexpr int kExitCantCreate = 73;    // an output exists or cannot be written
inline constexpr int kExitRetry = 75;         // try again later
inline constexpr int kExitInterrupted = 130;  // Ctrl-C

// Verdicts of `assay compare`.
inline constexpr int kExitLossless = 0;
inline constexpr int kExitRisky = 1;
inline constexpr int kExitUndecided = 2;
inline constexpr int kExitFair = 3;

// The exit code that tells of `status`.
int ExitCode(const absl::Status& status);

}  // namespace assay
