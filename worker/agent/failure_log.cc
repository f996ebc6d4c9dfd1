#include "worker/agent/failure_log.h"

#include <utility>

namespace assay::worker {

void FailureLog::Add(v1::UnitFailure failure) {
  const std::lock_guard lock(mutex_);
  entries_.push_back({std::move(failure), 0});
}

std::vector<v1::UnitFailure> FailureLog::Collect(int64_t sequence, int max_failures) {
  const std::lock_guard lock(mutex_);
  std::vector<v1::UnitFailure> failures;
  for (Entry& entry : entries_) {
    if (std::ssize(failures) == max_failures) break;
    if (entry.first_sequence == 0) entry.first_sequence = sequence;
    failures.push_back(entry.failure);
  }
  return failures;
}

std::vector<v1::UnitFailure> FailureLog::Acknowledge(int64_t sequence) {
  const std::lock_guard lock(mutex_);
  std::vector<v1::UnitFailure> recorded;
  while (!entries_.empty() && entries_.front().first_sequence != 0 &&
         entries_.front().first_sequence <= sequence) {
    recorded.push_back(std::move(entries_.front().failure));
    entries_.pop_front();
  }
  return recorded;
}

bool FailureLog::empty() const {
  const std::lock_guard lock(mutex_);
  return entries_.empty();
}

}  // namespace assay::worker
