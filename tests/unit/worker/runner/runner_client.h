// A test's end of a runner: the real program, spoken to in frames.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "assay/v1/runner.pb.h"
#include "base/subprocess.h"
#include "tests/testing/paths.h"
#include "tests/testing/patience.h"
#include "tests/testing/status_matchers.h"
#include "worker/wire/frame.h"

namespace assay::worker {

class RunnerClient {
 public:
  RunnerClient() {
    absl::StatusOr<std::unique_ptr<Subprocess>> process =
        Subprocess::Start({.argv = {testing::BinaryPath("assay-runner"), "serve"},
                           .pipe_stdin = true,
                           .pipe_stdout = true});
    EXPECT_OK(process.status());
    if (process.ok()) process_ = *std::move(process);
  }

  void Send(const v1::RunnerCommand& command) {
    EXPECT_OK(WriteFrame(process_->stdin_fd(), command));
  }

  // The next event for which `wanted` holds; others are skipped. Empty event at the stream's end.
  v1::RunnerEvent WaitFor(const std::function<bool(const v1::RunnerEvent&)>& wanted) {
    while (true) {
      v1::RunnerEvent event;
      const absl::StatusOr<bool> received =
          ReadFrame(process_->stdout_fd(), &event, absl::Seconds(120) * testing::kPatience);
      EXPECT_OK(received.status());
      if (!received.ok() || !*received) return {};
      if (wanted(event)) return event;
    }
  }

  // Loads a model; the answer to it.
  v1::RunnerEvent Load(const std::string& model_dir, int max_num_seqs = 8) {
    v1::RunnerCommand command;
    command.mutable_load()->set_request_id(1);
    command.mutable_load()->set_model_dir(model_dir);
    command.mutable_load()->set_num_threads(1);
    command.mutable_load()->set_max_num_seqs(max_num_seqs);
    Send(command);
    return WaitFor(
        [](const v1::RunnerEvent& event) { return event.has_loaded() || event.has_load_failed(); });
  }

  Subprocess* process() { return process_.get(); }

 private:
  std::unique_ptr<Subprocess> process_;
};

inline std::string TinyModel() { return testing::SourcePath("examples/models/tiny-qwen2-1m"); }

}  // namespace assay::worker
