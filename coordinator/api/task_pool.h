// A few threads for what may block: reading the database, hashing files, moving artifacts. gRPC's
// own threads never wait.
//
// Thread-safe. The destructor runs what was posted and joins.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/synchronization/mutex.h>

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

namespace assay::coordinator {

class TaskPool {
 public:
  TaskPool(int num_threads, size_t max_queue) : max_queue_(max_queue) {
    for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this] { Work(); });
  }
  ~TaskPool() { Stop(); }
  TaskPool(const TaskPool&) = delete;
  TaskPool& operator=(const TaskPool&) = delete;

  // False when too much waits already or the pool has stopped; the task is not run then.
  bool Post(std::function<void()> task) {
    absl::MutexLock lock(&mutex_);
    if (stopped_ || tasks_.size() >= max_queue_) return false;
    tasks_.push_back(std::move(task));
    return true;
  }

  void Stop() {
    {
      absl::MutexLock lock(&mutex_);
      stopped_ = true;
    }
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }

 private:
  void Work() {
    while (true) {
      std::function<void()> task;
      {
        const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
          return stopped_ || !tasks_.empty();
        };
        absl::MutexLock lock(&mutex_);
        mutex_.Await(absl::Condition(&ready));
        if (tasks_.empty()) return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      task();
    }
  }

  const size_t max_queue_;
  absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace assay::coordinator
