// The spool: finished samples on the worker's disk until the coordinator has stored them.
//
// Hours of a GPU may lie in one answer, and the coordinator may be away for as long. So a sample is
// appended to a segment file and synced before it counts as spooled, is reported until it is
// answered, and is forgotten only then. A segment whose records are all forgotten is deleted; after
// a crash the records of the others come back, and the coordinator answers DUPLICATE to those it
// has.
//
//   Add --> in memory --(group fdatasync)--> durable --Take--> reported --Remove--> forgotten
//                ^                              ^                 |
//                +-- disk full: retried         +-----Return------+
//
// When the disk refuses, records stay in memory, may be taken and reported from there, and
// health() says why; the agent then takes no new work, so memory is bounded by what was leased. The
// disk is tried again until it works, with or without a record to write.
//
// Opaque bytes; thread-safe. A folder belongs to one process at a time (flock).
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "worker/agent/spool_segment.h"

namespace assay::worker {

class Spool {
 public:
  struct Options {
    std::string directory;
    int64_t segment_bytes = int64_t{8} << 20;    // a larger segment is followed by a new one
    int64_t compact_bytes = int64_t{256} << 10;  // a smaller one is kept though all is forgotten
    absl::Duration retry_interval = absl::Seconds(1);  // after the disk refused
  };

  struct Record {
    int64_t id = 0;
    std::string bytes;
  };

  // Makes the folder and reads what an earlier process left. FAILED_PRECONDITION when another
  // process has it.
  static absl::StatusOr<std::unique_ptr<Spool>> Open(Options options);

  // Writes what is still in memory, once.
  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  // Never fails and never waits for the disk.
  void Add(std::string record);

  // The oldest records that are not out: at most `max_records` of together `max_bytes`, but at
  // least one. Waits up to `timeout` for the first; returns early and empty after Interrupt().
  std::vector<Record> Take(int max_records, int64_t max_bytes, absl::Duration timeout);

  // Gives records back that could not be reported.
  void Return(const std::vector<int64_t>& ids);

  // They are stored elsewhere: forgets them.
  void Remove(const std::vector<int64_t>& ids);

  // Records not yet forgotten.
  int num_records() const;
  // Records that are in memory alone.
  int num_undurable() const;
  // OK, or why the disk refused last time.
  absl::Status health() const;

  // Waits until everything added before is durable or the disk refused; returns health().
  absl::Status Flush();

  // Ends the waiting of every Take, now and later.
  void Interrupt();

 private:
  struct Segment {
    std::string path;
    int64_t size_bytes = 0;
    int num_live = 0;
    bool sealed = false;
  };
  struct Entry {
    std::string bytes;
    int64_t segment = -1;  // -1: not durable
    bool out = false;
  };

  Spool(Options options, int lock_fd);
  absl::Status Replay();
  void WriteLoop();
  absl::Status WriteGroup(const std::vector<int64_t>& ids, const std::vector<std::string>& bytes);
  absl::Status ProbeDisk() const;
  void SealForgottenSegment();
  bool Takeable(const Entry& entry) const;
  std::vector<std::string> DropDeadSegments();

  const Options options_;
  const int lock_fd_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int64_t, Entry> entries_;     // by id, which rises with age
  std::deque<int64_t> undurable_;        // ids in order
  std::map<int64_t, Segment> segments_;  // by number
  absl::Status health_;
  int64_t next_id_ = 1;
  int64_t num_write_attempts_ = 0;
  bool interrupted_ = false;
  bool stopping_ = false;

  // Of the writing thread alone.
  std::unique_ptr<SegmentWriter> writer_;
  int64_t active_segment_ = 0;

  std::thread thread_;
};

}  // namespace assay::worker
