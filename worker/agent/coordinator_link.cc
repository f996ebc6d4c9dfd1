#include "worker/agent/coordinator_link.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/log.h"
#include "base/status.h"

namespace assay::worker {
namespace {

// A coordinator that asks for more than this does not know what it does.
constexpr absl::Duration kShortestInterval = absl::Milliseconds(20);
constexpr absl::Duration kLongestInterval = absl::Minutes(5);

}  // namespace

CoordinatorLink::CoordinatorLink(CoordinatorClient* client, Options options, Handlers handlers)
    : client_(client),
      options_(options),
      handlers_(std::move(handlers)),
      backoff_(options.first_retry, options.longest_retry) {}

CoordinatorLink::~CoordinatorLink() { Stop(); }

void CoordinatorLink::Start() {
  thread_ = std::thread([this] { Run(); });
}

void CoordinatorLink::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void CoordinatorLink::Notify() {
  {
    const std::lock_guard lock(mutex_);
    notified_ = true;
  }
  changed_.notify_all();
}

bool CoordinatorLink::connected() const {
  const std::lock_guard lock(mutex_);
  return welcomed_ && !stream_lost_;
}

bool CoordinatorLink::Stopping() const {
  const std::lock_guard lock(mutex_);
  return stopping_ || client_->is_shut_down();
}

bool CoordinatorLink::Lost() const {
  const std::lock_guard lock(mutex_);
  return stream_lost_;
}

void CoordinatorLink::Run() {
  bool reported = false;
  while (!Stopping()) {
    const absl::Status status = Converse();
    if (Stopping()) return;
    bool was_welcomed = false;
    {
      const std::lock_guard lock(mutex_);
      was_welcomed = std::exchange(welcomed_, false);
    }
    if (was_welcomed) backoff_.Reset();
    // Once per outage: a coordinator may be away for hours.
    if (was_welcomed || !reported) {
      spdlog::warn("coordinator: {}; trying again", Message(status));
      reported = true;
    }
    const absl::Duration wait = backoff_.Next();
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, absl::ToChronoMilliseconds(wait), [this] { return stopping_; });
  }
}

// One stream from Hello to its end; why it ended.
absl::Status CoordinatorLink::Converse() {
  // Without a connection the stream fails, and says why there is none.
  (void)client_->WaitForConnection(options_.connect_wait);
  CoordinatorClient::Call call(client_);
  const std::unique_ptr<CoordinatorClient::SyncStream> stream = client_->OpenSync(&call);
  {
    const std::lock_guard lock(mutex_);
    stream_lost_ = false;
    notified_ = true;  // the first heartbeat follows Welcome at once
  }
  v1::SyncRequest request;
  *request.mutable_hello() = handlers_.hello();
  if (stream->Write(request)) {
    std::thread reader([this, raw = stream.get()] { ReadLoop(raw); });
    WriteLoop(stream.get());
    // A stream that was lost says why by itself.
    if (!Lost()) call.context()->TryCancel();
    reader.join();
  }
  const absl::Status status = FromGrpc(stream->Finish());
  const std::lock_guard lock(mutex_);
  if (status.ok()) return Unavailable("ended the conversation");
  if (status.code() == absl::StatusCode::kCancelled && !welcomed_) {
    return Unavailable("did not answer within {}", absl::FormatDuration(options_.welcome_timeout));
  }
  return status;
}

void CoordinatorLink::ReadLoop(CoordinatorClient::SyncStream* stream) {
  v1::SyncResponse response;
  while (stream->Read(&response)) {
    if (response.has_welcome()) {
      const std::lock_guard lock(mutex_);
      welcomed_ = true;
      heartbeat_interval_ =
          std::clamp(absl::Microseconds(response.welcome().heartbeat_interval_us()),
                     kShortestInterval, kLongestInterval);
    }
    handlers_.directive(response);
    if (response.has_welcome()) changed_.notify_all();
  }
  {
    const std::lock_guard lock(mutex_);
    stream_lost_ = true;
  }
  changed_.notify_all();
}

void CoordinatorLink::WriteLoop(CoordinatorClient::SyncStream* stream) {
  {
    std::unique_lock lock(mutex_);
    const bool answered =
        changed_.wait_for(lock, absl::ToChronoMilliseconds(options_.welcome_timeout),
                          [this] { return stopping_ || stream_lost_ || welcomed_; });
    if (!answered || stopping_ || stream_lost_) return;
  }
  while (true) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, absl::ToChronoMilliseconds(heartbeat_interval_),
                        [this] { return stopping_ || stream_lost_ || notified_; });
      if (stopping_ || stream_lost_) return;
      notified_ = false;
    }
    v1::SyncRequest request;
    *request.mutable_heartbeat() = handlers_.heartbeat();
    if (!stream->Write(request)) return;
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, absl::ToChronoMilliseconds(options_.coalesce),
                      [this] { return stopping_ || stream_lost_; });
  }
}

}  // namespace assay::worker
