#include "coordinator/control/control_loop.h"

#include <absl/time/clock.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/status.h"

namespace assay::coordinator {
namespace {

// A disk that fails is asked again this often.
constexpr absl::Duration kRetryStore = absl::Milliseconds(250);
// After so long without a sample or a grant the WAL is emptied.
constexpr std::chrono::seconds kIdleCheckpoint(5);

std::chrono::steady_clock::time_point Now() { return std::chrono::steady_clock::now(); }

}  // namespace

ControlLoop::ControlLoop(ControlPlane* plane, storage::ControlStore* store, Sink sink,
                         Options options)
    : plane_(plane), store_(store), sink_(std::move(sink)), options_(options) {}

ControlLoop::~ControlLoop() { Stop(); }

void ControlLoop::Start() {
  {
    const std::lock_guard lock(mutex_);
    ASSAY_CHECK(!running_, "the control loop runs already");
    running_ = true;
  }
  thread_ = std::thread([this] { Loop(); });
}

void ControlLoop::Stop() {
  {
    const std::lock_guard lock(mutex_);
    running_ = false;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void ControlLoop::Post(Work work, Done done, size_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    const bool has_room = queue_.size() < options_.max_queue &&
                          (queue_bytes_ == 0 || queue_bytes_ + bytes <= options_.max_queue_bytes);
    if (running_ && has_room) {
      queue_.push_back({std::move(work), std::move(done), bytes});
      queue_bytes_ += bytes;
      changed_.notify_one();
      return;
    }
  }
  done(Unavailable("the coordinator is overloaded or stopping; try again"));
}

absl::Status ControlLoop::Run(Work work) {
  // Shared: the control thread may still hold it when the waiter has gone on.
  struct Outcome {
    std::mutex mutex;
    std::condition_variable ended;
    bool done = false;
    absl::Status status;
  };
  const auto outcome = std::make_shared<Outcome>();
  Post(std::move(work), [outcome](const absl::Status& committed) {
    const std::lock_guard lock(outcome->mutex);
    outcome->status = committed;
    outcome->done = true;
    outcome->ended.notify_one();
  });
  std::unique_lock lock(outcome->mutex);
  outcome->ended.wait(lock, [&] { return outcome->done; });
  return outcome->status;
}

std::shared_ptr<const LiveSnapshot> ControlLoop::Snapshot(bool fresh) {
  {
    const std::lock_guard lock(mutex_);
    if (!fresh && snapshot_ &&
        Now() - snapshot_time_ < absl::ToChronoMilliseconds(options_.snapshot_age)) {
      return snapshot_;
    }
  }
  const auto taken = std::make_shared<std::shared_ptr<const LiveSnapshot>>();
  const absl::Status committed = Run([this, taken](ControlPlane& plane) {
    LiveSnapshot snapshot = plane.TakeSnapshot();
    snapshot.batch_sizes = batch_sizes_;
    {
      const std::lock_guard lock(mutex_);
      snapshot.num_commands_waiting = queue_.size();
    }
    *taken = std::make_shared<const LiveSnapshot>(std::move(snapshot));
  });
  const std::lock_guard lock(mutex_);
  // Only what is committed is shown: nobody sees what a crash could undo.
  if (committed.ok()) {
    snapshot_ = *taken;
    snapshot_time_ = Now();
  }
  return snapshot_;
}

void ControlLoop::Loop() {
  while (true) {
    std::vector<Item> items = WaitForBatch();
    {
      const std::lock_guard lock(mutex_);
      if (items.empty() && !running_) break;
    }
    RunBatch(std::move(items));
  }
  if (const absl::Status emptied = store_->CheckpointWhenIdle(); !emptied.ok()) {
    spdlog::warn("the WAL could not be emptied: {}", Message(emptied));
  }
}

std::vector<ControlLoop::Item> ControlLoop::WaitForBatch() {
  std::vector<Item> items;
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, next_tick_, [this] { return !queue_.empty() || !running_; });
  TakeWaiting(&items);
  return items;
}

// With mutex_ held.
void ControlLoop::TakeWaiting(std::vector<Item>* items) {
  while (!queue_.empty() && items->size() < static_cast<size_t>(options_.max_batch)) {
    queue_bytes_ -= queue_.front().bytes;
    items->push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
}

// More of what has come meanwhile, as long as the batch has room.
bool ControlLoop::TakeMore(std::vector<Item>* items) {
  const std::lock_guard lock(mutex_);
  const size_t before = items->size();
  TakeWaiting(items);
  return items->size() > before;
}

void ControlLoop::RunBatch(std::vector<Item> items) {
  const std::chrono::steady_clock::time_point gather_until =
      Now() + absl::ToChronoMilliseconds(options_.max_gather);
  absl::Status status = plane_->BeginBatch();
  if (status.ok()) {
    size_t next = 0;
    do {
      for (; next < items.size(); ++next) items[next].work(*plane_);
    } while (Now() < gather_until && TakeMore(&items));
    if (Now() >= next_tick_) {
      next_tick_ = Now() + absl::ToChronoMilliseconds(options_.tick_interval);
      (void)plane_->HandleTick();  // its error is the batch's
    }
    status = plane_->CommitBatch();
    if (!items.empty()) batch_sizes_.Add(static_cast<double>(items.size()));
  } else {
    status = Unavailable("the store is not available: {}", Message(status));
    spdlog::error("{}", Message(status));
  }
  for (Item& item : items) item.done(status);
  if (!status.ok()) {
    absl::SleepFor(kRetryStore);
    return;
  }
  std::vector<OutgoingMessage> messages = plane_->TakeMessages();
  if (!messages.empty()) sink_(std::move(messages));
  Checkpoint();
}

void ControlLoop::Checkpoint() {
  const ControlCounters& counters = plane_->counters();
  const int64_t activity = counters.num_accepted + counters.num_leases_granted;
  absl::Status status = absl::OkStatus();
  if (activity != last_activity_) {
    last_activity_ = activity;
    empty_wal_at_ = Now() + kIdleCheckpoint;
    status = store_->CheckpointIfLarge();
  } else if (Now() >= empty_wal_at_) {
    empty_wal_at_ = SteadyTime::max();
    status = store_->CheckpointWhenIdle();
  }
  if (!status.ok()) spdlog::warn("checkpoint: {}", Message(status));
}

}  // namespace assay::coordinator
