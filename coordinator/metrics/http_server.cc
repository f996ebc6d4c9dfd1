#include "coordinator/metrics/http_server.h"

#include <absl/time/clock.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "base/status.h"

namespace assay::coordinator {
namespace {

constexpr absl::Duration kLinger = absl::Seconds(1);

absl::StatusOr<sockaddr_in> ParseListen(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  std::string host = listen.substr(0, colon);
  if (host == "localhost") host = "127.0.0.1";
  sockaddr_in address{};
  address.sin_family = AF_INET;
  uint16_t port = 0;
  const char* const begin =
      listen.data() + (colon == std::string::npos ? listen.size() : colon + 1);
  const char* const end = listen.data() + listen.size();
  bool valid = colon != std::string::npos && begin != end;
  if (valid) {
    const auto [parsed, error] = std::from_chars(begin, end, port);
    valid = error == std::errc() && parsed == end &&
            inet_pton(AF_INET, host.c_str(), &address.sin_addr) == 1 &&
            (ntohl(address.sin_addr.s_addr) >> 24) == 127;
  }
  if (!valid) {
    return InvalidArgument(
        "--metrics {}: a loopback address and a port, as 127.0.0.1:9464 (port 0: any free one); "
        "metrics are not served to other machines without TLS",
        listen);
  }
  address.sin_port = htons(port);
  return address;
}

std::string_view ReasonOf(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    default:
      return "Internal Server Error";
  }
}

}  // namespace

struct HttpServer::Connection {
  enum class State { kReading, kWriting, kLingering, kClosed };
  explicit Connection(int descriptor) : fd(descriptor) {}
  ~Connection() { close(fd); }

  const int fd;
  State state = State::kReading;
  absl::Time deadline;
  std::string head;
  std::string answer;
  size_t num_sent = 0;
};

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(Options options) {
  ASSAY_ASSIGN_OR_RETURN(sockaddr_in address, ParseListen(options.listen));
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int one = 1;
  socklen_t size = sizeof address;
  if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
      bind(listener, reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      listen(listener, 16) != 0 ||
      getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    const int error = errno;
    if (listener >= 0) close(listener);
    return Unavailable("--metrics {}: cannot listen: {}", options.listen, strerror(error));
  }
  const int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake < 0) {
    close(listener);
    return Unavailable("--metrics {}: no eventfd: {}", options.listen, strerror(errno));
  }
  std::unique_ptr<HttpServer> server(
      new HttpServer(std::move(options), listener, wake, ntohs(address.sin_port)));
  server->thread_ = std::thread([raw = server.get()] { raw->Loop(); });
  return server;
}

HttpServer::HttpServer(Options options, int listener, int wake, int port)
    : options_(std::move(options)), listener_(listener), wake_(wake), port_(port) {}

HttpServer::~HttpServer() {
  eventfd_write(wake_, 1);
  if (thread_.joinable()) thread_.join();
  close(listener_);
  close(wake_);
}

void HttpServer::Loop() {
  while (true) {
    std::vector<pollfd> polled = {{wake_, POLLIN, 0}};
    absl::Time wake_at = absl::InfiniteFuture();
    for (const auto& [fd, connection] : connections_) {
      const bool writing = connection->state == Connection::State::kWriting;
      polled.push_back({fd, static_cast<short>(writing ? POLLOUT : POLLIN), 0});
      wake_at = std::min(wake_at, connection->deadline);
    }
    if (connections_.size() < options_.max_connections) polled.push_back({listener_, POLLIN, 0});
    int timeout_ms = -1;
    if (wake_at != absl::InfiniteFuture()) {
      const int64_t left_ms = absl::ToInt64Milliseconds(wake_at - absl::Now()) + 1;
      timeout_ms = static_cast<int>(std::clamp<int64_t>(left_ms, 0, 60'000));
    }
    if (poll(polled.data(), polled.size(), timeout_ms) < 0 && errno != EINTR) return;
    if (polled[0].revents != 0) return;
    for (const pollfd& one : polled) {
      if (one.revents == 0) continue;
      if (one.fd == listener_) {
        Accept();
      } else {
        Advance(connections_.at(one.fd).get());
      }
    }
    const absl::Time now = absl::Now();
    for (const auto& [fd, connection] : connections_) {
      if (now < connection->deadline) continue;
      if (connection->state == Connection::State::kReading && !connection->head.empty()) {
        Respond(connection.get(), {.status = 408, .body = "the request took too long\n"});
      } else {
        connection->state = Connection::State::kClosed;
      }
    }
    std::erase_if(connections_,
                  [](const auto& one) { return one.second->state == Connection::State::kClosed; });
  }
}

void HttpServer::Accept() {
  const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;  // the client has gone, or descriptors are used up: it tries again
  auto connection = std::make_unique<Connection>(fd);
  connection->deadline = absl::Now() + options_.timeout;
  connections_[fd] = std::move(connection);
}

void HttpServer::Advance(Connection* connection) {
  switch (connection->state) {
    case Connection::State::kReading:
      return Read(connection);
    case Connection::State::kWriting:
      return Write(connection);
    case Connection::State::kLingering: {
      // Unread bytes at close would reset the connection and lose the answer on its way.
      char ignored[4096];
      const ssize_t n = recv(connection->fd, ignored, sizeof ignored, 0);
      if (n == 0 || (n < 0 && errno != EAGAIN)) connection->state = Connection::State::kClosed;
      return;
    }
    case Connection::State::kClosed:
      return;
  }
}

void HttpServer::Read(Connection* connection) {
  char buffer[4096];
  const ssize_t n = recv(connection->fd, buffer, sizeof buffer, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    connection->state = Connection::State::kClosed;
    return;
  }
  connection->head.append(buffer, static_cast<size_t>(n));
  const size_t end = connection->head.find("\r\n\r\n");
  if (std::min(end, connection->head.size()) > options_.max_head_bytes) {
    Respond(connection, {.status = 431, .body = "the request's head is too large\n"});
  } else if (end != std::string::npos) {
    Respond(connection, Answer(connection->head));
  }
}

HttpResponse HttpServer::Answer(const std::string& head) const {
  const std::string line = head.substr(0, head.find("\r\n"));
  const size_t first = line.find(' ');
  const size_t second = line.find(' ', first == std::string::npos ? first : first + 1);
  if (first == std::string::npos || second == std::string::npos ||
      line.substr(second + 1, 7) != "HTTP/1.") {
    return {.status = 400, .body = "not an HTTP/1 request\n"};
  }
  if (line.substr(0, first) != "GET") return {.status = 405, .body = "only GET\n"};
  std::string path = line.substr(first + 1, second - first - 1);
  path = path.substr(0, path.find('?'));
  const auto handler = options_.handlers.find(path);
  if (handler == options_.handlers.end()) return {.status = 404, .body = "no such path\n"};
  return handler->second();
}

void HttpServer::Respond(Connection* connection, const HttpResponse& response) {
  connection->answer = fmt::format(
      "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}Cache-Control: no-store\r\n"
      "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
      response.status, ReasonOf(response.status), response.content_type, response.body.size(),
      response.status == 405 ? "Allow: GET\r\n" : "");
  connection->answer += response.body;
  connection->state = Connection::State::kWriting;
  connection->deadline = absl::Now() + options_.timeout;
  Write(connection);
}

void HttpServer::Write(Connection* connection) {
  while (connection->num_sent < connection->answer.size()) {
    const ssize_t n = send(connection->fd, connection->answer.data() + connection->num_sent,
                           connection->answer.size() - connection->num_sent, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
      connection->state = Connection::State::kClosed;
      return;
    }
    connection->num_sent += static_cast<size_t>(n);
  }
  shutdown(connection->fd, SHUT_WR);
  connection->state = Connection::State::kLingering;
  connection->deadline = absl::Now() + kLinger;
}

}  // namespace assay::coordinator
