// The smallest HTTP/1.1 server that Prometheus and a health check need: GET on fixed paths, one
// request a connection, on a loopback address only.
//
// Requests are hostile: the head is limited in bytes and time, bodies are not read, connections
// beyond a limit wait in the kernel's queue. A handler runs on the server's one thread, so a slow
// one makes the next request wait, nothing else.
//
//   400 not HTTP   404 no such path   405 not GET   408 too slow   431 head too large
#pragma once

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

namespace assay::coordinator {

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

// Thread-safe.
class HttpServer {
 public:
  struct Options {
    std::string listen;  // 127.0.0.1:PORT; port 0: the kernel chooses
    std::map<std::string, std::function<HttpResponse()>> handlers;  // by path, "/metrics"
    size_t max_connections = 16;
    size_t max_head_bytes = 8192;
    absl::Duration timeout = absl::Seconds(5);  // for the head, and for the answer
  };

  // INVALID_ARGUMENT unless `listen` is a loopback IPv4 address or localhost, with a port;
  // UNAVAILABLE when it is in use.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(Options options);
  // Closes every connection and joins.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const { return port_; }

 private:
  struct Connection;
  HttpServer(Options options, int listener, int wake, int port);

  void Loop();
  void Accept();
  void Advance(Connection* connection);
  void Read(Connection* connection);
  void Write(Connection* connection);
  HttpResponse Answer(const std::string& head) const;
  void Respond(Connection* connection, const HttpResponse& response);

  const Options options_;
  const int listener_;
  const int wake_;  // an eventfd: readable once the server stops
  const int port_;
  std::map<int, std::unique_ptr<Connection>> connections_;  // by descriptor; of the thread
  std::thread thread_;
};

}  // namespace assay::coordinator
