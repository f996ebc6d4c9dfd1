// Server streams of answers: one written by a thread that may wait (rows of a query, an artifact),
// one written by whoever has news (a watch). Both own themselves: gRPC frees them when the call
// ends and everybody else has let go.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

namespace assay::coordinator {

// For one writing thread. A reader that takes nothing for half a minute loses the call.
template <typename Response>
class BlockingWriter final : public grpc::ServerWriteReactor<Response> {
 public:
  static std::shared_ptr<BlockingWriter> Make(grpc::CallbackServerContext* context) {
    const std::shared_ptr<BlockingWriter> writer(new BlockingWriter(context));
    writer->self_ = writer;
    return writer;
  }

  // False when the reader is gone.
  bool Write(Response response) {
    {
      const std::lock_guard lock(mutex_);
      if (gone_) return false;
      writing_ = true;
    }
    response_ = std::move(response);
    this->StartWrite(&response_);
    const auto written = [this] { return !writing_; };
    std::unique_lock lock(mutex_);
    if (!written_.wait_for(lock, kPatience, written)) {
      context_->TryCancel();
      written_.wait(lock, written);
    }
    return !gone_;
  }

  bool gone() const {
    const std::lock_guard lock(mutex_);
    return gone_;
  }

  // Call once, last.
  void End(const grpc::Status& status) { this->Finish(status); }

  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    if (!ok) gone_ = true;
    written_.notify_one();
  }
  void OnCancel() override {
    const std::lock_guard lock(mutex_);
    gone_ = true;
  }
  void OnDone() override { const std::shared_ptr<BlockingWriter> last = std::move(self_); }

 private:
  static constexpr std::chrono::seconds kPatience{30};
  explicit BlockingWriter(grpc::CallbackServerContext* context) : context_(context) {}

  grpc::CallbackServerContext* const context_;
  std::shared_ptr<BlockingWriter> self_;
  Response response_;
  mutable std::mutex mutex_;  // guards the next three
  std::condition_variable written_;
  bool writing_ = false;
  bool gone_ = false;
};

// Thread-safe. One message is in flight at a time; who is not ready skips news.
template <typename Response>
class WatchWriter final : public grpc::ServerWriteReactor<Response> {
 public:
  static std::shared_ptr<WatchWriter> Make() {
    const std::shared_ptr<WatchWriter> writer(new WatchWriter);
    writer->self_ = writer;
    return writer;
  }

  // The last message has left, and the reader is there.
  bool ready() {
    const std::lock_guard lock(mutex_);
    return !writing_ && !ended_ && !gone_;
  }
  bool gone() {
    const std::lock_guard lock(mutex_);
    return gone_ || ended_;
  }
  // Only when ready().
  void Send(Response response) {
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    writing_ = true;
    response_ = std::move(response);
    this->StartWrite(&response_);
  }
  // A last message, then the end.
  void SendLast(Response response) {
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    ended_ = true;
    response_ = std::move(response);
    this->StartWriteAndFinish(&response_, grpc::WriteOptions(), grpc::Status::OK);
  }
  void End(const grpc::Status& status) {
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    ended_ = true;
    this->Finish(status);
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    if (!ok) gone_ = true;
  }
  void OnCancel() override {
    const std::lock_guard lock(mutex_);
    gone_ = true;
  }
  void OnDone() override { const std::shared_ptr<WatchWriter> last = std::move(self_); }

 private:
  WatchWriter() = default;

  std::shared_ptr<WatchWriter> self_;
  Response response_;
  // Recursive: gRPC may call OnWriteDone within StartWrite, on the same thread.
  std::recursive_mutex mutex_;
  bool writing_ = false;
  bool ended_ = false;
  bool gone_ = false;
};

}  // namespace assay::coordinator
