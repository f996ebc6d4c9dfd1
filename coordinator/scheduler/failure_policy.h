// When a failing unit, job or worker is believed to be at fault. Pure functions.
//
// A crash fails every unit that was being generated, and only one of them may be the cause: so each
// is suspect and goes out again alone on an otherwise empty slot. Only what happens to it there
// says anything about it, and once is no proof: whoever kills runners from outside (a person, the
// kernel short of memory, a test) hits some unit that runs alone. So a unit is poison when it has
// failed alone twice and on two distinct worker incarnations, or alone three times on the only
// worker there is, or a fleet of one would repeat it for ever.
#pragma once

#include <absl/time/time.h>

#include <algorithm>
#include <cstdint>

namespace assay::coordinator {

inline constexpr int32_t kPoisonIncarnations = 2;
inline constexpr int32_t kPoisonFailuresAlone = 2;
inline constexpr int32_t kPoisonFailuresOfOneWorker = 3;
// With BlockFor between them a fleet of one tries for four minutes: long enough to free a disk.
inline constexpr int32_t kJobInfrastructureRetries = 8;

// `num_failures_alone` counts failures during which nothing else ran on the slot.
inline bool IsPoison(int32_t num_distinct_incarnations, int32_t num_failures_alone) {
  return num_failures_alone >= kPoisonFailuresOfOneWorker ||
         (num_failures_alone >= kPoisonFailuresAlone &&
          num_distinct_incarnations >= kPoisonIncarnations);
}

// A job that fails by its own error fails the same way everywhere; the machine's faults are
// retried.
inline bool GiveUpJob(bool infrastructure, int32_t num_infrastructure_failures) {
  return !infrastructure || num_infrastructure_failures > kJobInfrastructureRetries;
}

// How long a worker gets nothing of a model that it could not run: 1 s, doubling to 5 min. A sample
// stored from it ends the count.
inline absl::Duration BlockFor(int32_t num_failures_in_a_row) {
  return std::min(absl::Seconds(1) * (1 << std::min(num_failures_in_a_row - 1, 9)),
                  absl::Minutes(5));
}

}  // namespace assay::coordinator
