// A few threads for what may block: reading the database, hashing files, moving artifacts. gRPC's
// own threads never wait.
//
// Thread-safe. The destructor runs what was posted and joins.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
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
    const std::lock_guard lock(mutex_);
    if (stopped_ || tasks_.size() >= max_queue_) return false;
    tasks_.push_back(std::move(task));
    changed_.notify_one();
    return true;
  }

  void Stop() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }

 private:
  void Work() {
    while (true) {
      std::function<void()> task;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stopped_ || !tasks_.empty(); });
        if (tasks_.empty()) return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      task();
    }
  }

  const size_t max_queue_;
  std::mutex mutex_;  // guards the next three
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool stopped_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace assay::coordinator
