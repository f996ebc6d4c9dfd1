#include "coordinator/metrics/http_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/testing/status_matchers.h"

namespace assay::coordinator {
namespace {

using assay::testing::IsError;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class HttpServerTest : public ::testing::Test {
 protected:
  void Start(HttpServer::Options options = {}) {
    options.listen = "127.0.0.1:0";
    options.handlers["/metrics"] = [this] { return HttpResponse{.body = body_}; };
    ASSERT_OK_AND_ASSIGN(server_, HttpServer::Start(std::move(options)));
  }

  int Connect() const {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(server_->port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    return fd;
  }
  static void SendText(int fd, const std::string& text) {
    // A refused request may be answered, and closed, before all of it was sent.
    (void)!send(fd, text.data(), text.size(), MSG_NOSIGNAL);
  }
  // All that comes until the server closes.
  static std::string ReceiveAll(int fd) {
    std::string text;
    char buffer[4096];
    ssize_t n;
    while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0) {
      text.append(buffer, static_cast<size_t>(n));
    }
    close(fd);
    return text;
  }
  std::string Ask(const std::string& request) const {
    const int fd = Connect();
    SendText(fd, request);
    return ReceiveAll(fd);
  }

  std::string body_ = "assay_units_queued 3\n";
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AGetIsAnsweredWithItsLength) {
  Start();
  const std::string answer = Ask("GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\nContent-Length: 21\r\n"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\nassay_units_queued 3\n"));
}

TEST_F(HttpServerTest, ALargeAnswerArrivesWhole) {
  body_ = std::string(8 << 20, 'x');  // more than the kernel buffers at once
  Start();
  EXPECT_THAT(Ask("GET /metrics HTTP/1.1\r\n\r\n"), EndsWith("\r\n\r\n" + body_));
}

TEST_F(HttpServerTest, WhatIsNoPlainGetIsRefused) {
  Start({.max_head_bytes = 256});
  EXPECT_THAT(Ask("GET /secret HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(Ask("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"),
              StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(Ask("\x16\x03\x01\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Ask("GET /metrics\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Ask("PRI * HTTP/2.0\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Ask("GET /metrics HTTP/1.1\r\nX: " + std::string(2000, 'a') + "\r\n\r\n"),
              StartsWith("HTTP/1.1 431 "));
}

TEST_F(HttpServerTest, AConnectionThatNeverAsksIsClosed) {
  Start({.timeout = absl::Milliseconds(50)});
  EXPECT_EQ(ReceiveAll(Connect()), "");
  const int slow = Connect();
  SendText(slow, "GET /metr");
  EXPECT_THAT(ReceiveAll(slow), StartsWith("HTTP/1.1 408 "));
}

// Without the timeout the two would hold the only places for ever.
TEST_F(HttpServerTest, IdleConnectionsDoNotKeepOthersOut) {
  Start({.max_connections = 2, .timeout = absl::Milliseconds(50)});
  const int first = Connect();
  const int second = Connect();
  EXPECT_THAT(Ask("GET /metrics HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 200 OK\r\n"));
  close(first);
  close(second);
}

TEST_F(HttpServerTest, StopsWhileSomebodyIsConnected) {
  Start();
  const int idle = Connect();
  server_.reset();
  EXPECT_EQ(ReceiveAll(idle), "");
}

TEST(HttpServerListenTest, OnlyLoopbackIsServed) {
  for (const char* listen : {"0.0.0.0:0", "192.168.0.1:9464", "example.org:1", "127.0.0.1",
                             "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000", "", ":9464"}) {
    EXPECT_THAT(HttpServer::Start({.listen = listen}),
                IsError(absl::StatusCode::kInvalidArgument, "a loopback address and a port"))
        << listen;
  }
  ASSERT_OK_AND_ASSIGN(const auto one, HttpServer::Start({.listen = "localhost:0"}));
  EXPECT_THAT(HttpServer::Start({.listen = fmt::format("127.0.0.1:{}", one->port())}),
              IsError(absl::StatusCode::kUnavailable, "cannot listen"));
}

}  // namespace
}  // namespace assay::coordinator
