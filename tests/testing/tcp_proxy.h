// A link between one client and a server on loopback that can be bad: blackholed in either
// direction, slow, cut in the middle of a message. Needs no privilege and knows no protocol.
//
// Held bytes wait here as they would wait in TCP behind a dead link: healed, they go on; dropped,
// nobody ever sees them. Thread-safe; one thread of its own.
#pragma once

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace assay::testing {

class TcpProxy {
 public:
  // Listens on a port of the kernel's choice and connects each client to 127.0.0.1:`server_port`.
  static absl::StatusOr<std::unique_ptr<TcpProxy>> Start(int server_port);
  ~TcpProxy();
  TcpProxy(const TcpProxy&) = delete;
  TcpProxy& operator=(const TcpProxy&) = delete;

  int port() const { return port_; }

  // Lets nothing through in these directions until Heal.
  void Hold(bool to_server, bool to_client);
  // Each piece of at most `piece_bytes` takes `delay`, one after another.
  void Slow(absl::Duration delay, int piece_bytes);
  // Resets every connection once `num_bytes` more have passed, wherever in a message that is.
  void CutAfter(int64_t num_bytes);
  // Resets every connection now; what was held is gone.
  void Drop();
  // As good as new; what was held goes on.
  void Heal();

  struct Counters {
    int64_t num_connections = 0;
    int64_t num_bytes = 0;       // let through
    int64_t num_held_bytes = 0;  // waiting now because of Hold or Slow
    int64_t num_cut = 0;         // connections that CutAfter ended
  };
  Counters counters() const;

 private:
  using Time = absl::Time;
  struct Piece {
    std::string bytes;
    Time due;
  };
  // One direction of a connection.
  struct Pipe {
    bool to_server = false;
    int from = -1;
    int to = -1;
    std::deque<Piece> pieces;
    int64_t num_bytes = 0;  // in `pieces`
    Time last_due;
    bool ended = false;      // no more will come
    bool passed_on = false;  // and the other side knows
  };
  struct Connection {
    int client = -1;
    int server = -1;
    bool connecting = true;
    Pipe up;
    Pipe down;
    bool broken = false;
  };
  struct Mode {
    bool hold_to_server = false;
    bool hold_to_client = false;
    absl::Duration delay;
    int piece_bytes = 16 << 10;
    int64_t cut_after = -1;  // bytes; -1: never
    bool drop = false;
  };

  TcpProxy(int listener, int port, int server_port, int wake_read, int wake_write);
  void Wake();
  void Run();
  void Accept();
  void Read(Pipe* pipe, Connection* connection);
  void Write(Pipe* pipe, Connection* connection);
  bool IsHeld(const Pipe& pipe) const;
  void ResetAll();
  void Close(Connection* connection, bool reset);

  const int listener_;
  const int port_;
  const int server_port_;
  const int wake_read_;
  const int wake_write_;

  mutable std::mutex mutex_;
  Mode mode_;
  Counters counters_;
  bool stopping_ = false;
  std::list<Connection> connections_;  // of the thread, under the lock

  std::thread thread_;
};

}  // namespace assay::testing
