// Graders: child processes that may die or hang on what they read, and must cost only that.
//
// Each thread of the pool owns one assay-grader. A request that is not answered in time, or whose
// grader dies, is tried again with a new process, because the cause may lie outside (a kill, a
// stopped machine); when that fails too, the verdict is VERDICT_GRADER_ERROR, which nobody counts
// as wrong.
//
// Thread-safe.
#pragma once

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "assay/v1/runner.pb.h"
#include "base/subprocess.h"

namespace assay::worker {

class GraderPool {
 public:
  struct Options {
    std::string program;  // of assay-grader
    int num_graders = 1;
    absl::Duration timeout = absl::Seconds(2);  // per request and try
    int num_tries = 3;
  };

  explicit GraderPool(Options options);
  // Ends the graders; requests that wait are dropped without a call of `done`.
  ~GraderPool();
  GraderPool(const GraderPool&) = delete;
  GraderPool& operator=(const GraderPool&) = delete;

  // `done` is called once with the grade, on a thread of the pool.
  void Submit(v1::GradeRequest request, std::function<void(v1::Grade)> done);

  // Requests whose `done` has not returned.
  int num_unfinished() const;

 private:
  struct Task {
    v1::GradeRequest request;
    std::function<void(v1::Grade)> done;
  };

  void Run();
  bool stopping() const;
  v1::Grade Grade(const v1::GradeRequest& request, std::unique_ptr<Subprocess>* grader);
  absl::StatusOr<v1::Grade> TryOnce(const v1::GradeRequest& request,
                                    std::unique_ptr<Subprocess>* grader);

  const Options options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;
  int num_unfinished_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace assay::worker
