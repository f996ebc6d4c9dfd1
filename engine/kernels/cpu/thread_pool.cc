#include "engine/kernels/cpu/thread_pool.h"

#include <utility>

#include "base/status.h"

namespace assay::engine::cpu {

ThreadPool::ThreadPool(int num_threads) : num_threads_(num_threads) {
  ASSAY_CHECK(num_threads >= 1, "num_threads={}", num_threads);
  // The caller is worker 0.
  for (int worker = 1; worker < num_threads; ++worker) {
    threads_.emplace_back([this, worker] { Work(worker); });
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::Run(int num_tasks, std::function<void(int, int)> body) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    body_ = std::move(body);
    num_tasks_ = num_tasks;
    next_task_.store(0, std::memory_order_relaxed);
    num_busy_ = num_threads_ - 1;
    ++generation_;
  }
  start_.notify_all();
  DrainTasks(0);
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [this] { return num_busy_ == 0; });
}

void ThreadPool::Work(int worker) {
  int64_t seen = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    start_.wait(lock, [&] { return stopping_ || generation_ != seen; });
    if (stopping_) return;
    seen = generation_;
    lock.unlock();
    DrainTasks(worker);
    lock.lock();
    if (--num_busy_ == 0) done_.notify_one();
  }
}

void ThreadPool::DrainTasks(int worker) {
  while (true) {
    const int task = next_task_.fetch_add(1, std::memory_order_relaxed);
    if (task >= num_tasks_) return;
    body_(task, worker);
  }
}

}  // namespace assay::engine::cpu
