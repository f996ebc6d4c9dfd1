// A sweep as a person writes it: YAML in, checked values out, YAML with every default out again.
//
// The parser knows what can be known without looking at the world: keys, types, ranges, which
// methods and bits exist, which benchmarks are built in, and that names used in one place are
// declared in another. The planner finds models, benchmarks and calibration sets and says what is
// missing at the position kept here. Grammar: README.md of this folder.
//
// Errors are INVALID_ARGUMENT, one line each, at most twenty at once, in the order of the file:
//   demo.yaml:12:5: unknown key 'metods' in sweep (did you mean 'methods'?)
//
// Everything here is a pure function; specs are hostile input and bounded in size, depth and
// counts.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "storage/stores/records.h"

namespace assay::coordinator {

// A place in the file, 1-based. {0, 0} is what no file says.
struct SpecPosition {
  int line = 0;
  int column = 0;
};

// Where cells run. The two compute with different arithmetic, so a cell belongs to one of them.
enum class Device : int8_t { kCpu, kCuda };

// A benchmark as asked for, defaults filled in.
struct BenchmarkSpec {
  std::string name;       // canonical: "math500", also when the file says "math-500"
  std::string path;       // JSONL file; empty: looked up by name under the benchmark roots
  std::string prompt;     // template of the user's turn; "{question}" is replaced
  std::string grader;     // "boxed_number", "boxed_text"
  int32_t limit = 0;      // only the first items; 0 is all
  int32_t per_level = 0;  // only the first items of each level; 0 is all
  std::string version;    // pins the first digits of the version hash; empty: any
  SpecPosition where;
};

struct ModelSpec {
  std::string name;
  std::string path;                  // what is looked up under the model roots; empty: the name
  int32_t tensor_parallel_size = 1;  // GPUs that hold it together
  std::vector<BenchmarkSpec> benchmarks;  // instead of the sweep's; empty: the sweep's
  SpecPosition where;
};

// One method at one width: `bits: [a, b]` becomes two entries.
struct MethodEntry {
  storage::MethodRecord method;
  std::vector<std::string> models;      // only these, sorted; empty: all
  std::vector<std::string> benchmarks;  // only these, sorted; empty: all
  SpecPosition where;
};

// Cells that match every field that is not empty are left out.
struct Exclusion {
  std::string model;
  std::string method;
  std::string bits;
  std::string benchmark;
  SpecPosition where;
};

// As s1 does it (arXiv 2501.19393). All zero and empty is off.
struct BudgetForcingSpec {
  int64_t max_thinking_tokens = 0;
  int32_t num_extensions = 0;
  std::string extension_text;
  std::string end_of_thinking;
  std::string forced_stop_text;
};

struct SweepSpec {
  std::string file_name;  // for the planner's errors
  std::string name;
  std::string owner;
  int32_t priority = 50;  // 0..100, more is sooner
  bool baseline = true;   // run bf16 wherever a method runs
  Device device = Device::kCpu;
  std::vector<ModelSpec> models;
  std::vector<MethodEntry> methods;
  std::vector<BenchmarkSpec> benchmarks;
  int32_t default_repeats = 1;
  std::map<std::string, int32_t> repeats;  // by benchmark name, where it is not the default
  storage::SamplingRecord sampling;        // budget_forcing_json filled in
  BudgetForcingSpec budget_forcing;
  std::vector<Exclusion> exclude;

  int32_t num_repeats(const std::string& benchmark) const;
  // "demo.yaml:12:5: ", what every message about a place begins with.
  std::string At(const SpecPosition& where) const;
};

inline constexpr int64_t kMaxSpecBytes = int64_t{1} << 20;

// `file_name` is only for messages.
absl::StatusOr<SweepSpec> ParseSweepSpec(const std::string& yaml, const std::string& file_name);

// The spec with every default filled in. Parsing the result and printing it again gives the same
// text, byte for byte.
std::string PrintSweepSpec(const SweepSpec& spec);

// The budget as the JSON object that cells store, keys as in assay.v1.BudgetForcing; empty when
// off.
std::string BudgetForcingJson(const BudgetForcingSpec& budget);

}  // namespace assay::coordinator
