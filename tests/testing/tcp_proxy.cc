#include "tests/testing/tcp_proxy.h"

#include <absl/time/clock.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/status.h"

namespace assay::testing {
namespace {

constexpr int64_t kMaxPipeBytes = 1 << 20;
constexpr absl::Duration kLongestPoll = absl::Seconds(1);

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

void SetNoDelay(int fd) {
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

bool WouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

}  // namespace

absl::StatusOr<std::unique_ptr<TcpProxy>> TcpProxy::Start(int server_port) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (listener < 0) return Unavailable("socket: {}", std::strerror(errno));
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof address;
  int wake[2];
  if (::bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::listen(listener, 64) != 0 ||
      ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      ::pipe2(wake, O_NONBLOCK | O_CLOEXEC) != 0) {
    const absl::Status status = Unavailable("a listener on loopback: {}", std::strerror(errno));
    ::close(listener);
    return status;
  }
  std::unique_ptr<TcpProxy> proxy(
      new TcpProxy(listener, ntohs(address.sin_port), server_port, wake[0], wake[1]));
  proxy->thread_ = std::thread([raw = proxy.get()] { raw->Run(); });
  return proxy;
}

TcpProxy::TcpProxy(int listener, int port, int server_port, int wake_read, int wake_write)
    : listener_(listener),
      port_(port),
      server_port_(server_port),
      wake_read_(wake_read),
      wake_write_(wake_write) {}

TcpProxy::~TcpProxy() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  Wake();
  if (thread_.joinable()) thread_.join();
  ResetAll();
  ::close(listener_);
  ::close(wake_read_);
  ::close(wake_write_);
}

void TcpProxy::Wake() {
  const ssize_t ignored = ::write(wake_write_, "x", 1);  // full: it will wake anyway
  (void)ignored;
}

void TcpProxy::Hold(bool to_server, bool to_client) {
  const std::lock_guard lock(mutex_);
  mode_.hold_to_server = to_server;
  mode_.hold_to_client = to_client;
}

void TcpProxy::Slow(absl::Duration delay, int piece_bytes) {
  const std::lock_guard lock(mutex_);
  mode_.delay = delay;
  mode_.piece_bytes = piece_bytes;
}

void TcpProxy::CutAfter(int64_t num_bytes) {
  const std::lock_guard lock(mutex_);
  mode_.cut_after = num_bytes;
}

void TcpProxy::Drop() {
  const std::lock_guard lock(mutex_);
  ResetAll();
}

void TcpProxy::Heal() {
  {
    const std::lock_guard lock(mutex_);
    mode_ = Mode{};
    for (Connection& connection : connections_) {
      for (Pipe* pipe : {&connection.up, &connection.down}) {
        for (Piece& piece : pipe->pieces) piece.due = absl::InfinitePast();
        pipe->last_due = absl::InfinitePast();
      }
    }
  }
  Wake();
}

TcpProxy::Counters TcpProxy::counters() const {
  const std::lock_guard lock(mutex_);
  Counters counters = counters_;
  for (const Connection& connection : connections_) {
    counters.num_held_bytes += connection.up.num_bytes + connection.down.num_bytes;
  }
  return counters;
}

bool TcpProxy::IsHeld(const Pipe& pipe) const {
  return pipe.to_server ? mode_.hold_to_server : mode_.hold_to_client;
}

void TcpProxy::Run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    std::erase_if(connections_, [](const Connection& connection) { return connection.broken; });
    std::vector<pollfd> polled = {{listener_, POLLIN, 0}, {wake_read_, POLLIN, 0}};
    const Time now = absl::Now();
    Time next = now + kLongestPoll;
    const auto events_of = [&](const Pipe& in, const Pipe& out, bool connecting) {
      short events = 0;
      if (!in.ended && in.num_bytes < kMaxPipeBytes && !connecting) events |= POLLIN;
      if (connecting) return events;
      if (out.pieces.empty() || IsHeld(out)) return events;
      if (out.pieces.front().due <= now) {
        events |= POLLOUT;
      } else {
        next = std::min(next, out.pieces.front().due);
      }
      return events;
    };
    std::vector<Connection*> order;
    for (Connection& connection : connections_) {
      const short client = events_of(connection.up, connection.down, connection.connecting);
      const short server =
          connection.connecting ? short{POLLOUT} : events_of(connection.down, connection.up, false);
      // Nothing to wait for: not asked, for a hangup would be reported again and again.
      polled.push_back({client == 0 ? -1 : connection.client, client, 0});
      polled.push_back({server == 0 ? -1 : connection.server, server, 0});
      order.push_back(&connection);
    }
    lock.unlock();
    const int64_t wait_ms = std::max<int64_t>(1, absl::ToInt64Milliseconds(next - now) + 1);
    ::poll(polled.data(), polled.size(), static_cast<int>(wait_ms));
    lock.lock();
    char drain[64];
    while (::read(wake_read_, drain, sizeof drain) > 0) {
    }
    if ((polled[0].revents & POLLIN) != 0) Accept();
    for (size_t i = 0; i < order.size(); ++i) {
      Connection& connection = *order[i];
      if (connection.broken) continue;
      const short client = polled[2 + 2 * i].revents;
      const short server = polled[3 + 2 * i].revents;
      if (connection.connecting) {
        if ((server & (POLLOUT | POLLERR | POLLHUP)) == 0) continue;
        int error = 0;
        socklen_t size = sizeof error;
        ::getsockopt(connection.server, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error != 0) Close(&connection, true);
        connection.connecting = false;
        continue;
      }
      constexpr short kReadable = POLLIN | POLLHUP | POLLERR;
      if ((client & kReadable) != 0) Read(&connection.up, &connection);
      if (!connection.broken && (server & kReadable) != 0) Read(&connection.down, &connection);
      if (!connection.broken) Write(&connection.up, &connection);
      if (!connection.broken) Write(&connection.down, &connection);
    }
  }
}

void TcpProxy::Accept() {
  const int client = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (client < 0) return;
  const int server = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const sockaddr_in address = Loopback(server_port_);
  if (server < 0 ||
      (::connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
       errno != EINPROGRESS)) {
    ::close(client);
    if (server >= 0) ::close(server);
    return;
  }
  SetNoDelay(client);
  SetNoDelay(server);
  ++counters_.num_connections;
  Connection& connection = connections_.emplace_back();
  connection.client = client;
  connection.server = server;
  connection.up = {
      .to_server = true, .from = client, .to = server, .last_due = absl::InfinitePast()};
  connection.down = {
      .to_server = false, .from = server, .to = client, .last_due = absl::InfinitePast()};
}

void TcpProxy::Read(Pipe* pipe, Connection* connection) {
  if (pipe->ended || pipe->num_bytes >= kMaxPipeBytes) return;
  std::string bytes(static_cast<size_t>(mode_.piece_bytes), '\0');
  const ssize_t n = ::read(pipe->from, bytes.data(), bytes.size());
  if (n < 0) {
    if (!WouldBlock()) Close(connection, true);
    return;
  }
  if (n == 0) {
    pipe->ended = true;
    return;
  }
  bytes.resize(static_cast<size_t>(n));
  pipe->num_bytes += n;
  pipe->last_due = std::max(absl::Now(), pipe->last_due) + mode_.delay;
  pipe->pieces.push_back({std::move(bytes), pipe->last_due});
}

void TcpProxy::Write(Pipe* pipe, Connection* connection) {
  while (!pipe->pieces.empty() && !IsHeld(*pipe) && pipe->pieces.front().due <= absl::Now()) {
    std::string& bytes = pipe->pieces.front().bytes;
    size_t size = bytes.size();
    if (mode_.cut_after >= 0) size = std::min(size, static_cast<size_t>(mode_.cut_after));
    const ssize_t n = size == 0 ? 0 : ::send(pipe->to, bytes.data(), size, MSG_NOSIGNAL);
    if (n < 0) {
      if (!WouldBlock()) Close(connection, true);
      return;
    }
    counters_.num_bytes += n;
    pipe->num_bytes -= n;
    bytes.erase(0, static_cast<size_t>(n));
    if (bytes.empty()) pipe->pieces.pop_front();
    if (mode_.cut_after < 0) continue;
    mode_.cut_after -= n;
    if (mode_.cut_after > 0) continue;
    mode_.cut_after = -1;
    for (const Connection& each : connections_) counters_.num_cut += each.broken ? 0 : 1;
    ResetAll();
    return;
  }
  if (pipe->ended && pipe->pieces.empty() && !pipe->passed_on) {
    pipe->passed_on = true;
    ::shutdown(pipe->to, SHUT_WR);
    if (connection->up.passed_on && connection->down.passed_on) Close(connection, false);
  }
}

void TcpProxy::ResetAll() {
  for (Connection& connection : connections_) {
    if (!connection.broken) Close(&connection, true);
  }
}

void TcpProxy::Close(Connection* connection, bool reset) {
  const linger abruptly = {1, 0};
  for (int* fd : {&connection->client, &connection->server}) {
    if (reset) ::setsockopt(*fd, SOL_SOCKET, SO_LINGER, &abruptly, sizeof abruptly);
    ::close(*fd);
    *fd = -1;
  }
  for (Pipe* pipe : {&connection->up, &connection->down}) {
    pipe->pieces.clear();
    pipe->num_bytes = 0;
  }
  connection->broken = true;
}

}  // namespace assay::testing
