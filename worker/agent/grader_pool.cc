#include "worker/agent/grader_pool.h"

#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "worker/wire/frame.h"
#include "worker/wire/utf8.h"

namespace assay::worker {

GraderPool::GraderPool(Options options) : options_(std::move(options)) {
  for (int i = 0; i < options_.num_graders; ++i) threads_.emplace_back([this] { Run(); });
}

GraderPool::~GraderPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void GraderPool::Submit(v1::GradeRequest request, std::function<void(v1::Grade)> done) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back({std::move(request), std::move(done)});
    ++num_unfinished_;
  }
  changed_.notify_one();
}

int GraderPool::num_unfinished() const {
  const std::lock_guard lock(mutex_);
  return num_unfinished_;
}

bool GraderPool::stopping() const {
  const std::lock_guard lock(mutex_);
  return stopping_;
}

void GraderPool::Run() {
  // Started here rather than by the creator: a child dies with the thread that forked it.
  std::unique_ptr<Subprocess> grader;
  int64_t next_request_id = 1;
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
    if (stopping_) return;
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task.request.set_request_id(next_request_id++);
    task.done(Grade(task.request, &grader));
    lock.lock();
    --num_unfinished_;
  }
}

v1::Grade GraderPool::Grade(const v1::GradeRequest& request, std::unique_ptr<Subprocess>* grader) {
  absl::Status last_error;
  for (int attempt = 0; attempt < options_.num_tries && !stopping(); ++attempt) {
    absl::StatusOr<v1::Grade> grade = TryOnce(request, grader);
    if (grade.ok()) return *std::move(grade);
    last_error = grade.status();
    spdlog::warn("grader {}: {}", request.grader(), Message(last_error));
    grader->reset();  // whatever it does now, its answers cannot be trusted to be to this request
  }
  v1::Grade failed;
  failed.set_grader(request.grader());
  failed.set_verdict(v1::Grade::VERDICT_GRADER_ERROR);
  failed.set_detail(ValidUtf8(Message(last_error)));
  return failed;
}

absl::StatusOr<v1::Grade> GraderPool::TryOnce(const v1::GradeRequest& request,
                                              std::unique_ptr<Subprocess>* grader) {
  if (*grader == nullptr) {
    ASSAY_ASSIGN_OR_RETURN(*grader, Subprocess::Start({.argv = {options_.program, "serve"},
                                                       .pipe_stdin = true,
                                                       .pipe_stdout = true,
                                                       .own_process_group = true}));
    ASSAY_RETURN_IF_ERROR(SetNonBlocking((*grader)->stdin_fd()));
  }
  ASSAY_RETURN_IF_ERROR(WriteFrame((*grader)->stdin_fd(), request, options_.timeout));
  v1::GradeResponse response;
  ASSAY_ASSIGN_OR_RETURN(const bool answered,
                         ReadFrame((*grader)->stdout_fd(), &response, options_.timeout));
  if (!answered) {
    const std::optional<int> status = (*grader)->Wait(absl::Seconds(1));
    return Unavailable("the grader died: {}",
                       status.has_value() ? DescribeWaitStatus(*status) : "its output was closed");
  }
  if (response.request_id() != request.request_id()) {
    return DataLoss("the grader answered request {} instead of {}", response.request_id(),
                    request.request_id());
  }
  return response.grade();
}

}  // namespace assay::worker
