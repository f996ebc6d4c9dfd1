// Benchmark files: JSON lines with the fields id, question, answer and, where there are some, level
// and subject; other fields are ignored. The files come from outside and are treated as hostile.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/planner/plan.h"
#include "coordinator/spec/sweep_spec.h"

namespace assay::coordinator {

struct BenchmarkItem {
  std::string name;  // the field id; unique in the file
  std::string question;
  std::string answer;
  std::string level;  // a number or a string in the file; empty when absent
  std::string subject;
};

inline constexpr int64_t kMaxBenchmarkBytes = int64_t{256} << 20;
inline constexpr int kMaxBenchmarkItems = 1'000'000;

// The items in file order. `file_name` is for messages: INVALID_ARGUMENT says "file:line: field
// ..".
absl::StatusOr<std::vector<BenchmarkItem>> ParseBenchmarkJsonl(std::string_view jsonl,
                                                               const std::string& file_name);

// Reads the file of a benchmark: its path when it has one, else under the first root that has it.
// NOT_FOUND lists what was looked for. A relative path stays below the roots.
absl::StatusOr<std::vector<BenchmarkItem>> LoadBenchmark(const std::vector<std::string>& roots,
                                                         const BenchmarkSpec& spec);

// What `limit` and `per_level` leave, in file order: the first items, and of each level the first.
std::vector<BenchmarkItem> SelectItems(std::vector<BenchmarkItem> items, int32_t limit,
                                       int32_t per_level);

// The stored form: items with their prompts, numbered from 0, and the version hash over the name,
// the items, the prompt and the grader. A subset is a benchmark version of its own, so that a cell
// always covers all items of its benchmark.
PlannedBenchmark MakeBenchmark(const BenchmarkSpec& spec, const std::vector<BenchmarkItem>& items);

}  // namespace assay::coordinator
