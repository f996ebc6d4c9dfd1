// The Sync conversation: keeps one stream to the coordinator open for as long as the agent lives.
//
//   connect --> Hello --> Welcome --> heartbeats out, directives in --> lost --> backoff --+
//      ^                                                                                   |
//      +-----------------------------------------------------------------------------------+
//
// A lost stream loses nothing: leases belong to the incarnation, which stays the same, and the
// heartbeat says everything that is held.
//
// Thread-safe. Handlers are called on threads of this class, one directive at a time.
#pragma once

#include <absl/status/status.h>
#include <absl/time/time.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "assay/v1/worker_service.pb.h"
#include "worker/agent/backoff.h"
#include "worker/agent/coordinator_client.h"

namespace assay::worker {

class CoordinatorLink {
 public:
  struct Handlers {
    std::function<v1::Hello()> hello;
    std::function<v1::Heartbeat()> heartbeat;
    std::function<void(const v1::SyncResponse&)> directive;  // Welcome included
  };
  struct Options {
    absl::Duration connect_wait = absl::Seconds(5);
    absl::Duration welcome_timeout = absl::Seconds(20);
    // Heartbeats that follow from changes are at least this far apart.
    absl::Duration coalesce = absl::Milliseconds(20);
    absl::Duration first_retry = absl::Milliseconds(200);
    absl::Duration longest_retry = absl::Seconds(10);
  };

  // `client` outlives the link.
  CoordinatorLink(CoordinatorClient* client, Options options, Handlers handlers);
  ~CoordinatorLink();
  CoordinatorLink(const CoordinatorLink&) = delete;
  CoordinatorLink& operator=(const CoordinatorLink&) = delete;

  // Begins the conversation.
  void Start();
  // Ends it; no handler is called after this. The client must be shut down by then, or a stalled
  // peer holds this up.
  void Stop();

  // A heartbeat soon, because something changed.
  void Notify();

  // Between Welcome and the loss of the stream.
  bool connected() const;

 private:
  void Run();
  absl::Status Converse();
  void ReadLoop(CoordinatorClient::SyncStream* stream);
  // Sends heartbeats until the stream is lost or the link stops.
  void WriteLoop(CoordinatorClient::SyncStream* stream);
  bool Stopping() const;
  bool Lost() const;

  CoordinatorClient* const client_;
  const Options options_;
  const Handlers handlers_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  bool notified_ = false;
  bool welcomed_ = false;
  bool stream_lost_ = false;
  absl::Duration heartbeat_interval_ = absl::Seconds(5);

  Backoff backoff_;  // of the thread alone
  std::thread thread_;
};

}  // namespace assay::worker
