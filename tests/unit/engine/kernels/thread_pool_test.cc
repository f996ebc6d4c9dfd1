#include "engine/kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace assay::engine::cpu {
namespace {

TEST(ThreadPoolTest, EveryTaskRunsOnceAndIsDoneOnReturn) {
  ThreadPool pool(4);
  for (int round = 0; round < 200; ++round) {
    std::vector<int> runs(round, 0);
    pool.ParallelFor(round, [&](int task, int worker) {
      EXPECT_TRUE(worker >= 0 && worker < 4);
      ++runs[task];
    });
    EXPECT_EQ(runs, std::vector<int>(round, 1));
  }
}

TEST(ThreadPoolTest, OneThreadRunsTasksInOrderInTheCaller) {
  ThreadPool pool(1);
  const std::thread::id caller = std::this_thread::get_id();
  std::vector<int> order;
  pool.ParallelFor(5, [&](int task, int worker) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    EXPECT_EQ(worker, 0);
    order.push_back(task);
  });
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
}

}  // namespace
}  // namespace assay::engine::cpu
