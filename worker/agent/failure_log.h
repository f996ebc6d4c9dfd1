// Failures on their way to the coordinator: repeated in every heartbeat until one that carried them
// is acknowledged. Thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "assay/v1/worker_service.pb.h"

namespace assay::worker {

class FailureLog {
 public:
  void Add(v1::UnitFailure failure);

  // What heartbeat `sequence` carries: the oldest ones, at most `max_failures`.
  std::vector<v1::UnitFailure> Collect(int64_t sequence, int max_failures);

  // The coordinator has recorded what heartbeats up to `sequence` carried; returns those.
  std::vector<v1::UnitFailure> Acknowledge(int64_t sequence);

  bool empty() const;

 private:
  struct Entry {
    v1::UnitFailure failure;
    int64_t first_sequence = 0;  // 0: not sent yet
  };

  mutable std::mutex mutex_;
  std::deque<Entry> entries_;
};

}  // namespace assay::worker
