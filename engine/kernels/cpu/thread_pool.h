// A fixed set of threads for loops over independent tasks.
//
// Which thread runs a task has no influence on results: tasks write disjoint memory and share only
// per-worker scratch. With one thread the loop runs in the caller and touches no lock, no atomic
// and no other thread.
//
// ParallelFor is called by one thread at a time and does not nest.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace assay::engine::cpu {

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls body(task, worker) for every task in [0, num_tasks), worker in [0, num_threads); returns
  // when all are done.
  template <typename Body>
  void ParallelFor(int num_tasks, const Body& body) {
    if (num_threads_ == 1 || num_tasks <= 1) {
      for (int task = 0; task < num_tasks; ++task) body(task, 0);
      return;
    }
    Run(num_tasks, body);
  }

 private:
  void Run(int num_tasks, std::function<void(int, int)> body);
  void Work(int worker);
  void DrainTasks(int worker);

  const int num_threads_;
  std::mutex mutex_;
  std::condition_variable start_;
  std::condition_variable done_;
  std::function<void(int, int)> body_;  // written under mutex_ while no worker is busy
  int num_tasks_ = 0;
  std::atomic<int> next_task_ = 0;
  int64_t generation_ = 0;  // guarded by mutex_; a new value starts the workers
  int num_busy_ = 0;        // guarded by mutex_
  bool stopping_ = false;   // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace assay::engine::cpu
