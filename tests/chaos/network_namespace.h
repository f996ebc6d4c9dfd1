// A network namespace with one wire (veth) to this one: another machine, as far as TCP can tell.
// Needs root and iproute2, and a kernel that lets this process make namespaces.
//
// It belongs to a process that only holds it, so it vanishes with this object and also when this
// process is killed. Not thread-safe: use it from the thread that made it.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <memory>
#include <string>
#include <vector>

#include "base/subprocess.h"

namespace assay::chaos {

class NetworkNamespace {
 public:
  // UNAVAILABLE saying why this process cannot have one.
  static absl::StatusOr<std::unique_ptr<NetworkNamespace>> Create();

  // Of this side of the wire; what runs inside dials it.
  std::string host_address() const { return prefix_ + ".1"; }

  // Put before a command line, it runs inside.
  std::vector<std::string> Enter() const;

  // Unplugs the wire: sending is an error at once.
  absl::Status Unplug();
  // Frames in one direction go to an address that nobody has: they vanish without a word.
  absl::Status Blackhole(bool outward);
  // Late and lossy, by netem or, where the kernel has none, by a narrow wire with a short queue
  // (tbf). UNAVAILABLE where it has neither.
  absl::Status Degrade(absl::Duration delay, int loss_percent);
  // As good as new.
  absl::Status Heal();

 private:
  NetworkNamespace(std::unique_ptr<Subprocess> holder, std::string device, std::string prefix)
      : holder_(std::move(holder)), device_(std::move(device)), prefix_(std::move(prefix)) {}
  absl::Status PlugIn();
  absl::Status Inside(std::vector<std::string> argv) const;

  const std::unique_ptr<Subprocess> holder_;
  const std::string device_;  // of this side
  const std::string prefix_;  // "10.213.4": .1 is this side, .2 inside
};

}  // namespace assay::chaos
