#include "coordinator/spec/benchmark_registry.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/hash.h"

namespace assay::coordinator {
namespace {

constexpr char kMathPrompt[] =
    "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}.";

// Lower case without separators: how people spell the same benchmark differently.
std::string Folded(std::string_view name) {
  std::string folded;
  for (const char c : name) {
    if (c == '-' || c == '_' || c == ' ') continue;
    folded += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return folded;
}

struct LaterBenchmark {
  std::string_view folded;
  std::string_view name;
};
constexpr std::array<LaterBenchmark, 4> kLater = {{{"gpqadiamond", "gpqa_diamond"},
                                                   {"gpqa", "gpqa_diamond"},
                                                   {"livecodebench", "livecodebench"},
                                                   {"lcb", "livecodebench"}}};

const LaterBenchmark* FindLater(std::string_view name) {
  const std::string folded = Folded(name);
  const auto found = std::find_if(kLater.begin(), kLater.end(),
                                  [&](const LaterBenchmark& b) { return b.folded == folded; });
  return found == kLater.end() ? nullptr : &*found;
}

}  // namespace

const std::vector<BenchmarkDefinition>& BenchmarkDefinitions() {
  // arith500's problems go in as they are: the tiny models were trained on them that way.
  static const std::vector<BenchmarkDefinition> kDefinitions = {
      {"arith500", "arith500/arith500.jsonl", "{question}", "question-1", "boxed_number", 120},
      {"gsm8k", "gsm8k/test.jsonl", kMathPrompt, "math-cot-1", "boxed_number", 700},
      {"math500", "math500/test.jsonl", kMathPrompt, "math-cot-1", "boxed_text", 3500},
      {"aime120", "aime120/test.jsonl", kMathPrompt, "math-cot-1", "boxed_number", 12000},
  };
  return kDefinitions;
}

const BenchmarkDefinition* FindBenchmarkDefinition(std::string_view name) {
  const std::string folded = Folded(name);
  for (const BenchmarkDefinition& definition : BenchmarkDefinitions()) {
    if (definition.name == folded) return &definition;
  }
  return nullptr;
}

bool IsLaterBenchmark(std::string_view name) { return FindLater(name) != nullptr; }

std::string CanonicalBenchmarkName(std::string_view name) {
  if (const BenchmarkDefinition* known = FindBenchmarkDefinition(name)) return known->name;
  if (const LaterBenchmark* later = FindLater(name)) return std::string(later->name);
  return std::string(name);
}

const std::string& MathPrompt() {
  static const std::string kPrompt = kMathPrompt;
  return kPrompt;
}

std::string PromptVersion(std::string_view prompt) {
  for (const BenchmarkDefinition& definition : BenchmarkDefinitions()) {
    if (definition.prompt == prompt) return definition.prompt_version;
  }
  return "custom-" + Sha256Hex(prompt).substr(0, 12);
}

const std::vector<std::string>& KnownGraders() {
  static const std::vector<std::string> kGraders = {"boxed_number", "boxed_text"};
  return kGraders;
}

}  // namespace assay::coordinator
