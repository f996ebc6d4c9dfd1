// The conversation with one worker: updates up, directives down.
//
// One update is in the control plane at a time: the next is read when the transaction of the last
// has ended, so a worker that talks fast waits by HTTP/2's flow control and never floods the queue.
// Directives come from the control thread and are written one after the other.
//
// The registry finds the stream of a worker incarnation. A new stream of the same incarnation
// replaces the old one; directives for an incarnation without a stream are dropped, because the
// worker's next heartbeat shows what it missed.
#pragma once

#include <grpcpp/grpcpp.h>

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "assay/v1/worker_service.pb.h"
#include "coordinator/auth/doorkeeper.h"
#include "coordinator/control/control_loop.h"

namespace assay::coordinator {

class SyncStream;

// Thread-safe.
class StreamRegistry {
 public:
  void Register(const std::string& worker_id, const std::string& incarnation,
                const std::shared_ptr<SyncStream>& stream);
  void Unregister(const std::string& worker_id, const std::string& incarnation,
                  const SyncStream* stream);
  // Writes each message to its worker's stream. Does not block.
  void Deliver(const std::vector<OutgoingMessage>& messages, const ControlPlane::Options& options);
  // Ends every conversation: the coordinator stops, workers dial again later.
  void CloseAll();

 private:
  using Key = std::pair<std::string, std::string>;  // worker, incarnation
  std::mutex mutex_;
  std::map<Key, std::weak_ptr<SyncStream>> streams_;  // guarded by mutex_
};

class SyncStream final : public grpc::ServerBidiReactor<v1::SyncRequest, v1::SyncResponse> {
 public:
  // The stream owns itself until OnDone. `loop` and `registry` outlive it.
  // `caller` is whom the connection is of: the hello must be of the same worker.
  static SyncStream* Start(ControlLoop* loop, StreamRegistry* registry, Caller caller);

  // Thread-safe. Nothing is sent after Close.
  void Send(v1::SyncResponse response);
  void Close(const grpc::Status& status);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone() override;

 private:
  SyncStream(ControlLoop* loop, StreamRegistry* registry, Caller caller)
      : loop_(loop), registry_(registry), caller_(std::move(caller)) {}

  void OnHello(const v1::Hello& hello);
  void OnHeartbeat(const v1::Heartbeat& heartbeat);
  void ReadNext();

  ControlLoop* const loop_;
  StreamRegistry* const registry_;
  const Caller caller_;
  std::shared_ptr<SyncStream> self_;

  v1::SyncRequest request_;
  std::string worker_id_;  // empty before the hello
  std::string incarnation_;

  // Recursive: gRPC may call OnWriteDone within StartWrite, on the same thread.
  std::recursive_mutex mutex_;
  std::deque<v1::SyncResponse> outgoing_;
  bool writing_ = false;
  bool closed_ = false;
};

}  // namespace assay::coordinator
