// The one thread that owns the control plane.
//
// Work is posted from anywhere and runs on that thread inside a transaction with whatever else is
// waiting: up to 64 pieces, or as many as come in 20 ms, share one fsync. While a commit runs the
// next batch gathers, so that a loaded coordinator commits full batches and an idle one at once.
// Each piece's `done` is called on the control thread after the commit, with its outcome; then the
// messages to workers go to the sink. Neither may block.
//
// Deadlines are of the steady clock: a wall clock that is set back must not stop the ticks, which
// expire leases.
//
// Thread-safe.
#pragma once

#include <absl/status/status.h>
#include <absl/time/time.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "coordinator/control/control_plane.h"
#include "coordinator/control/meters.h"

namespace assay::coordinator {

class ControlLoop {
 public:
  using Work = std::function<void(ControlPlane&)>;
  using Done = std::function<void(const absl::Status& committed)>;
  using Sink = std::function<void(std::vector<OutgoingMessage>)>;

  struct Options {
    int max_batch = 64;
    absl::Duration max_gather = absl::Milliseconds(20);
    absl::Duration tick_interval = absl::Seconds(1);
    size_t max_queue = 4096;
    // Of what is posted with its size. Reports of a large fleet that come all at once, after this
    // process was away, must not fill the machine's memory: the rest waits in the workers' spools.
    size_t max_queue_bytes = size_t{256} << 20;
    // A snapshot younger than this is given out again.
    absl::Duration snapshot_age = absl::Milliseconds(200);
  };

  // `plane` and `store` outlive the loop and belong to it from Start to Stop. The sink is called on
  // the control thread.
  ControlLoop(ControlPlane* plane, storage::ControlStore* store, Sink sink, Options options);
  ~ControlLoop();

  void Start();
  // Finishes what was posted, commits, empties the WAL. What is posted later is refused.
  void Stop();

  // `done` gets UNAVAILABLE, at once and on the caller's thread, when the queue is full or the loop
  // has stopped: the caller tries again later. `bytes`: what the work holds on to until it is done,
  // where that is much. One piece of any size finds room in an empty queue.
  void Post(Work work, Done done, size_t bytes = 0);

  // Posts and waits for the commit. Not on the control thread and not in a gRPC callback.
  absl::Status Run(Work work);

  // The present, at most `snapshot_age` old, or newer than this call when `fresh`. Waits for the
  // control thread: not in a gRPC callback. Null when the loop has stopped.
  std::shared_ptr<const LiveSnapshot> Snapshot(bool fresh = false);

 private:
  struct Item {
    Work work;
    Done done;
    size_t bytes = 0;
  };

  void Loop();
  std::vector<Item> WaitForBatch();
  void TakeWaiting(std::vector<Item>* items);
  void RunBatch(std::vector<Item> items);
  bool TakeMore(std::vector<Item>* items);
  void Checkpoint();

  ControlPlane* const plane_;
  storage::ControlStore* const store_;
  const Sink sink_;
  const Options options_;

  using SteadyTime = std::chrono::steady_clock::time_point;

  std::mutex mutex_;  // guards the next six; notified when the queue or running_ changes
  std::condition_variable changed_;
  std::deque<Item> queue_;
  size_t queue_bytes_ = 0;
  bool running_ = false;
  std::shared_ptr<const LiveSnapshot> snapshot_;
  SteadyTime snapshot_time_;

  // Of the control thread.
  Histogram batch_sizes_ = MakeBatchHistogram();
  SteadyTime next_tick_;
  int64_t last_activity_ = 0;
  SteadyTime empty_wal_at_ = SteadyTime::max();

  std::thread thread_;
};

}  // namespace assay::coordinator
