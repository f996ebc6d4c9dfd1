// The programs under chaos: a coordinator and two workers with TLS, each worker behind a link that
// can fail, each disk small, each wall clock movable; and a supervisor that starts again what
// ended, as systemd would.
//
//   w1 == TcpProxy ============== coordinator (DIR/data: small disk)
//   w2 == namespace, or TcpProxy ======++
//
// Where this machine does not let us (no root, no namespaces, sanitizers), the parts are missing
// and `Means` says why. Not thread-safe, and its children die with the thread that made it.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <memory>
#include <string>
#include <vector>

#include "base/subprocess.h"
#include "tests/chaos/network_namespace.h"
#include "tests/chaos/shifted_clock.h"
#include "tests/chaos/small_disk.h"
#include "tests/testing/certificates.h"
#include "tests/testing/local_system.h"
#include "tests/testing/tcp_proxy.h"

namespace assay::chaos {

// What this machine allows; asked once a process. An empty text allows it, another says why not.
struct Means {
  std::string no_mounts;
  std::string no_namespaces;
  std::string no_degrading;
  std::string no_clock_steps;

  // Gives the process mounts of its own: before any thread starts.
  static Means Find();
};

inline constexpr int kNumWorkers = 2;
inline constexpr absl::Duration kLeaseTtl = absl::Seconds(3);

class ChaosSystem {
 public:
  // Everything is made under `directory`, which must exist, and the coordinator serves.
  static absl::StatusOr<std::unique_ptr<ChaosSystem>> Start(const std::string& directory,
                                                            const Means& means);
  ~ChaosSystem();

  // Submits; the sweep's id.
  absl::StatusOr<std::string> Submit(const std::string& spec_yaml);

  // Starts what has ended and is due. An error when a program ended by itself and not because its
  // disk was full: that is a bug.
  absl::Status Supervise();

  // The coordinator is stopped by SIGTERM after the workers have drained: each must end well.
  absl::Status StopCleanly();

  // A program that is supervised.
  struct Program {
    std::string name;
    std::vector<std::string> argv;
    std::vector<std::string> environment;
    std::string log;
    std::unique_ptr<Subprocess> process;  // null while it is down
    absl::Time start_at;                  // while it is down
    bool disk_is_full = false;
    bool may_fail = false;  // its disk was full when it started
  };
  Program& coordinator() { return coordinator_; }
  Program& worker(int index) { return workers_[static_cast<size_t>(index)]; }

  bool coordinator_serves() const;

  // SIGKILL now, a new start after `down`. False when it is down.
  bool Kill(Program* program, absl::Duration down);

  testing::TcpProxy& proxy(int worker) { return *proxies_[static_cast<size_t>(worker)]; }
  bool behind_proxy(int worker) const { return worker == 0 || network_ == nullptr; }
  NetworkNamespace* network() { return network_.get(); }  // of w2; may be null
  SmallDisk* store_disk() { return store_disk_.get(); }   // may be null
  SmallDisk* spool_disk(int worker) { return spool_disks_[static_cast<size_t>(worker)].get(); }
  ShiftedClock& coordinator_clock() { return *coordinator_clock_; }
  ShiftedClock& worker_clock(int worker) { return *worker_clocks_[static_cast<size_t>(worker)]; }

  std::string database() const { return directory_ + "/data/assay.db"; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  const testing::Certificates& certificates() const { return *certificates_; }
  std::string liar_certificate() const { return liar_certificate_; }

  // What the database says; -1 while it cannot be read.
  int64_t QueryInteger(const std::string& sql) const;
  int64_t NumSamples() const { return QueryInteger("SELECT count(*) FROM sample"); }

  // A counter or gauge of the coordinator's /metrics; -1 while it does not answer.
  double Metric(const std::string& series) const;

  // The last lines of every log.
  std::string Logs() const;

 private:
  explicit ChaosSystem(std::string directory) : directory_(std::move(directory)) {}
  absl::Status MakeParts(const Means& means);
  absl::Status DescribePrograms(const Means& means);
  absl::Status StartProgram(Program* program);
  bool WaitUntilServing();

  const std::string directory_;
  int port_ = 0;
  std::string token_;
  std::string liar_certificate_;
  std::unique_ptr<testing::Certificates> certificates_;
  std::unique_ptr<NetworkNamespace> network_;
  std::unique_ptr<SmallDisk> store_disk_;
  std::vector<std::unique_ptr<SmallDisk>> spool_disks_;
  std::unique_ptr<ShiftedClock> coordinator_clock_;
  std::vector<std::unique_ptr<ShiftedClock>> worker_clocks_;
  std::vector<std::unique_ptr<testing::TcpProxy>> proxies_;
  Program coordinator_;
  std::vector<Program> workers_;  // after everything they use
};

}  // namespace assay::chaos
