#include "coordinator/api/sync_stream.h"

#include "base/log.h"
#include "base/status.h"
#include "coordinator/api/convert_worker.h"
#include "coordinator/api/grpc_status.h"
#include "coordinator/api/limits.h"

namespace assay::coordinator {
namespace {

// A worker that does not read is cut off; it dials again.
constexpr size_t kMaxOutgoing = 4096;

}  // namespace

// Registry --------------------------------------------------------------------------------------

void StreamRegistry::Register(const std::string& worker_id, const std::string& incarnation,
                              const std::shared_ptr<SyncStream>& stream) {
  std::shared_ptr<SyncStream> replaced;
  {
    const std::lock_guard lock(mutex_);
    std::weak_ptr<SyncStream>& entry = streams_[{worker_id, incarnation}];
    replaced = entry.lock();
    entry = stream;
  }
  if (replaced && replaced != stream) {
    replaced->Close({grpc::StatusCode::ABORTED, "a new stream of this worker replaces this one"});
  }
}

void StreamRegistry::Unregister(const std::string& worker_id, const std::string& incarnation,
                                const SyncStream* stream) {
  const std::lock_guard lock(mutex_);
  const auto it = streams_.find({worker_id, incarnation});
  // Expired when it was this one: its last owner is being destroyed.
  if (it == streams_.end()) return;
  const std::shared_ptr<SyncStream> current = it->second.lock();
  if (!current || current.get() == stream) streams_.erase(it);
}

void StreamRegistry::Deliver(const std::vector<OutgoingMessage>& messages,
                             const ControlPlane::Options& options) {
  for (const OutgoingMessage& message : messages) {
    std::shared_ptr<SyncStream> stream;
    {
      const std::lock_guard lock(mutex_);
      const auto it = streams_.find({message.worker_id, message.incarnation});
      if (it != streams_.end()) stream = it->second.lock();
    }
    if (stream) stream->Send(ToProto(message, options));
  }
}

void StreamRegistry::CloseAll() {
  std::vector<std::shared_ptr<SyncStream>> open;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, entry] : streams_) {
      if (auto stream = entry.lock()) open.push_back(std::move(stream));
    }
  }
  for (const auto& stream : open) {
    stream->Close({grpc::StatusCode::UNAVAILABLE, "the coordinator is stopping"});
  }
}

// Stream ----------------------------------------------------------------------------------------

SyncStream* SyncStream::Start(ControlLoop* loop, StreamRegistry* registry, Caller caller) {
  const std::shared_ptr<SyncStream> stream(new SyncStream(loop, registry, std::move(caller)));
  stream->self_ = stream;
  stream->ReadNext();
  return stream.get();
}

void SyncStream::ReadNext() {
  const std::lock_guard lock(mutex_);
  if (!closed_) StartRead(&request_);
}

void SyncStream::Send(v1::SyncResponse response) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  if (outgoing_.size() >= kMaxOutgoing) {
    Close({grpc::StatusCode::RESOURCE_EXHAUSTED, "the worker does not read its directives"});
    return;
  }
  outgoing_.push_back(std::move(response));
  if (writing_) return;
  writing_ = true;
  StartWrite(&outgoing_.front());
}

void SyncStream::Close(const grpc::Status& status) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  closed_ = true;
  Finish(status);
}

void SyncStream::OnReadDone(bool ok) {
  const std::shared_ptr<SyncStream> alive = self_;
  if (!ok) {
    Close(grpc::Status::OK);  // the worker has ended the conversation, or is gone
    return;
  }
  switch (request_.update_case()) {
    case v1::SyncRequest::kHello:
      OnHello(request_.hello());
      return;
    case v1::SyncRequest::kHeartbeat:
      OnHeartbeat(request_.heartbeat());
      return;
    case v1::SyncRequest::UPDATE_NOT_SET:
      ReadNext();
      return;  // of a later revision: not for us
  }
}

void SyncStream::OnHello(const v1::Hello& hello) {
  if (!worker_id_.empty()) {
    Close({grpc::StatusCode::INVALID_ARGUMENT, "a stream has one Hello, its first message"});
    return;
  }
  absl::Status checked = CheckHello(hello);
  if (checked.ok()) checked = caller_.CheckIsWorker(hello.worker_id());
  if (!checked.ok()) {
    spdlog::warn("a worker is refused: {}", Message(checked));
    Close(ToGrpc(checked));
    return;
  }
  worker_id_ = hello.worker_id();
  incarnation_ = hello.incarnation();
  registry_->Register(worker_id_, incarnation_, self_);
  const auto outcome = std::make_shared<absl::Status>();
  loop_->Post([outcome, command = FromProto(hello)](
                  ControlPlane& plane) { *outcome = plane.HandleHello(command).status(); },
              [stream = self_, outcome](const absl::Status& committed) {
                const absl::Status& status = committed.ok() ? *outcome : committed;
                if (status.ok()) {
                  stream->ReadNext();
                } else {
                  stream->Close(ToGrpc(status));
                }
              });
}

void SyncStream::OnHeartbeat(const v1::Heartbeat& heartbeat) {
  if (worker_id_.empty()) {
    Close({grpc::StatusCode::INVALID_ARGUMENT, "the first message of a stream is Hello"});
    return;
  }
  if (const absl::Status status = CheckHeartbeat(heartbeat); !status.ok()) {
    spdlog::warn("a heartbeat of worker {} is refused: {}", worker_id_, Message(status));
    Close(ToGrpc(status));
    return;
  }
  // A heartbeat that is lost with its batch says nothing that the next one does not say again.
  loop_->Post([command = FromProto(heartbeat, worker_id_, incarnation_)](
                  ControlPlane& plane) { (void)plane.HandleHeartbeat(command); },
              [stream = self_](const absl::Status&) { stream->ReadNext(); });
}

void SyncStream::OnWriteDone(bool ok) {
  const std::shared_ptr<SyncStream> alive = self_;
  const std::lock_guard lock(mutex_);
  outgoing_.pop_front();
  writing_ = false;
  if (!ok || closed_ || outgoing_.empty()) return;
  writing_ = true;
  StartWrite(&outgoing_.front());
}

void SyncStream::OnDone() {
  if (!worker_id_.empty()) registry_->Unregister(worker_id_, incarnation_, this);
  // Whoever still holds it may call Send or Close, which do nothing now.
  const std::shared_ptr<SyncStream> last = std::move(self_);
}

}  // namespace assay::coordinator
