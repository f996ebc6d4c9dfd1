// The benchmarks that have a name of their own: where their files lie under a benchmark root, their
// prompt (the study's, to the letter), their grader.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace assay::coordinator {

struct BenchmarkDefinition {
  std::string name;
  std::string file;            // below a benchmark root; <root>/<name>.jsonl is found too
  std::string prompt;          // "{question}" is replaced
  std::string prompt_version;  // goes into cell keys: a new prompt is a new cell
  std::string grader;
  double typical_tokens;  // of one answer of a reasoning model, before anything is measured
};

// Null when there is no such benchmark. Spelling does not matter: "MATH-500" is math500.
const BenchmarkDefinition* FindBenchmarkDefinition(std::string_view name);

const std::vector<BenchmarkDefinition>& BenchmarkDefinitions();

// True for the benchmarks of the study that this version does not run: gpqa_diamond, livecodebench.
bool IsLaterBenchmark(std::string_view name);

// "math500" for "MATH-500" where that is a benchmark of the registry or a later one; others as they
// are.
std::string CanonicalBenchmarkName(std::string_view name);

// The prompt of a benchmark that brings none: the study's for mathematics.
const std::string& MathPrompt();

// The version of a prompt: a definition's own, or "custom-" and the first digits of its hash.
std::string PromptVersion(std::string_view prompt);

// "boxed_number" and "boxed_text".
const std::vector<std::string>& KnownGraders();

}  // namespace assay::coordinator
