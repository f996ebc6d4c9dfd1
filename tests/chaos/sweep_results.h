// What a sweep stored, read from the database file, and how two runs of it differ.
//
// A unit is named by its cell's content key, its item and its repeat, which are the same in any
// database; what is compared is all that a disturbance must not change: seed, prompt, token ids,
// text, finish reason, verdict. Times, leases and epochs may differ.
//
// Not thread-safe; the file may be in use by a coordinator.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace assay::chaos {

struct UnitResult {
  std::string cell_key;
  int64_t item_index = 0;
  int64_t repeat = 0;

  uint64_t seed = 0;
  std::string prompt_sha256;
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t thinking_tokens = -1;
  int finish_reason = 0;
  std::vector<int32_t> token_ids;
  std::string text;
  int verdict = 0;
  std::string extracted;
};

// Every sample of the file in the order of its unit. DATA_LOSS naming a sample whose text or ids
// cannot be unpacked.
absl::StatusOr<std::vector<UnitResult>> ReadResults(const std::string& database);

struct Differences {
  int num_lost = 0;     // units of the first run that the second lacks
  int num_added = 0;    // units that the first run never had
  int num_doubled = 0;  // samples beyond the first of a unit, in the second run
  int num_altered = 0;
  std::vector<std::string> lines;  // one a difference: the unit and what is other about it

  bool none() const { return num_lost + num_added + num_doubled + num_altered == 0; }
};

Differences Compare(const std::vector<UnitResult>& undisturbed,
                    const std::vector<UnitResult>& disturbed);

}  // namespace assay::chaos
