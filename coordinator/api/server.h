// The coordinator's server: the control loop, the services and the threads between them.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <memory>
#include <string>

#include "base/clock.h"
#include "coordinator/auth/tls.h"
#include "coordinator/control/control_loop.h"
#include "coordinator/control/control_plane.h"
#include "coordinator/planner/plan_sweep.h"

namespace assay::coordinator {

// Thread-safe.
class Server {
 public:
  struct Options {
    std::string data_dir;                   // assay.db and artifacts/ live here; made when missing
    std::string listen = "127.0.0.1:7350";  // port 0: the kernel chooses
    PlannerRoots roots;
    ControlPlane::Options control;  // make_id may be left empty
    ControlLoop::Options loop;
    TlsFiles tls;                   // none: loopback only, and no tokens
    double max_calls_per_s = 2000;  // of one worker, person or connection; 0 is no limit
    std::string metrics_listen;     // 127.0.0.1:PORT; empty: no metrics
    int num_readers = 4;
    // What answers queries (query_process.h): the program of the coordinator itself.
    std::string query_program = "/proc/self/exe";
    int num_transfers = 2;
  };

  // Opens the database and serves. INVALID_ARGUMENT when `listen` is not a loopback address and
  // there is no TLS, or its files are no good. FAILED_PRECONDITION when another coordinator owns
  // the data; UNAVAILABLE when the port is taken. `clock` outlives the server.
  static absl::StatusOr<std::unique_ptr<Server>> Start(Options options, const Clock* clock);
  // Stops.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int port() const;
  int metrics_port() const;  // 0 without metrics

  // Ends conversations, finishes what is in the control plane's queue, empties the WAL. Idempotent.
  void Stop();

 private:
  struct Parts;
  explicit Server(std::unique_ptr<Parts> parts);

  std::unique_ptr<Parts> parts_;
};

}  // namespace assay::coordinator
