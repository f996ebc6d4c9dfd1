#include "tests/chaos/network_namespace.h"

#include <unistd.h>

#include <filesystem>

#include "base/status.h"
#include "tests/testing/local_system.h"

namespace assay::chaos {
namespace {

constexpr char kInnerDevice[] = "link0";
constexpr int kPacketBytes = 1600;
constexpr char kNobody[] = "02:00:00:00:00:0b";  // no device's address

absl::Status Run(const std::vector<std::string>& argv) {
  const testing::CommandResult result = testing::RunProgram(argv);
  if (result.exit_code == 0) return absl::OkStatus();
  return Unavailable("{}: {}", fmt::format("{}", fmt::join(argv, " ")),
                     result.err.substr(0, result.err.find('\n')));
}

std::string NamespaceOf(const std::string& process) {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/" + process + "/ns/net", error).string();
}

}  // namespace

absl::StatusOr<std::unique_ptr<NetworkNamespace>> NetworkNamespace::Create() {
  if (::geteuid() != 0) return Unavailable("network namespaces need root");
  ASSAY_ASSIGN_OR_RETURN(std::unique_ptr<Subprocess> holder,
                         Subprocess::Start({.argv = {"unshare", "--net", "sleep", "infinity"}}));
  const std::string pid = fmt::format("{}", holder->pid());
  const std::string ours = NamespaceOf("self");
  const bool made = testing::WaitUntil(
      [&] {
        const std::string theirs = NamespaceOf(pid);
        return !holder->running() || (!theirs.empty() && theirs != ours);
      },
      absl::Seconds(30));
  if (!made || !holder->running()) return Unavailable("network namespaces are not permitted here");
  // Process ids differ while processes live, so no two systems of one machine meet.
  const int number = holder->pid() % (256 * 64);
  std::unique_ptr<NetworkNamespace> result(new NetworkNamespace(
      std::move(holder), "chaos" + pid, fmt::format("10.{}.{}", 192 + number / 256, number % 256)));
  ASSAY_RETURN_IF_ERROR(result->PlugIn());
  return result;
}

absl::Status NetworkNamespace::PlugIn() {
  const std::string pid = fmt::format("{}", holder_->pid());
  ASSAY_RETURN_IF_ERROR(Run(
      {"ip", "link", "add", device_, "type", "veth", "peer", "name", kInnerDevice, "netns", pid}));
  ASSAY_RETURN_IF_ERROR(Run({"ip", "address", "add", prefix_ + ".1/24", "dev", device_}));
  ASSAY_RETURN_IF_ERROR(Run({"ip", "link", "set", device_, "up"}));
  ASSAY_RETURN_IF_ERROR(Inside({"ip", "link", "set", "lo", "up"}));
  ASSAY_RETURN_IF_ERROR(Inside({"ip", "address", "add", prefix_ + ".2/24", "dev", kInnerDevice}));
  return Inside({"ip", "link", "set", kInnerDevice, "up"});
}

std::vector<std::string> NetworkNamespace::Enter() const {
  return {"nsenter", fmt::format("--net=/proc/{}/ns/net", holder_->pid()), "--"};
}

absl::Status NetworkNamespace::Inside(std::vector<std::string> argv) const {
  std::vector<std::string> entered = Enter();
  entered.insert(entered.end(), argv.begin(), argv.end());
  return Run(entered);
}

absl::Status NetworkNamespace::Unplug() { return Run({"ip", "link", "set", device_, "down"}); }

absl::Status NetworkNamespace::Blackhole(bool outward) {
  if (outward) {
    return Inside({"ip", "neighbour", "replace", prefix_ + ".1", "lladdr", kNobody, "nud",
                   "permanent", "dev", kInnerDevice});
  }
  return Run({"ip", "neighbour", "replace", prefix_ + ".2", "lladdr", kNobody, "nud", "permanent",
              "dev", device_});
}

absl::Status NetworkNamespace::Degrade(absl::Duration delay, int loss_percent) {
  const absl::Status degraded = Run({"tc", "qdisc", "replace", "dev", device_, "root", "netem",
                                     "delay", fmt::format("{}ms", absl::ToInt64Milliseconds(delay)),
                                     "loss", fmt::format("{}%", loss_percent)});
  if (degraded.ok()) return degraded;
  // Without netem: a wire so narrow that one packet takes the delay, with a queue so short that
  // what comes in a burst is lost.
  const double bits_per_s = kPacketBytes * 8 / absl::ToDoubleSeconds(delay);
  return Run({"tc", "qdisc", "replace", "dev", device_, "root", "tbf", "rate",
              fmt::format("{:.0f}bit", bits_per_s), "burst", fmt::format("{}", 2 * kPacketBytes),
              "limit", fmt::format("{}", loss_percent > 0 ? 2 * kPacketBytes : 64 * kPacketBytes)});
}

absl::Status NetworkNamespace::Heal() {
  // Each undoes a fault that may not be there: only the end counts.
  (void)Run({"tc", "qdisc", "del", "dev", device_, "root"});
  (void)Run({"ip", "neighbour", "del", prefix_ + ".2", "dev", device_});
  (void)Inside({"ip", "neighbour", "del", prefix_ + ".1", "dev", kInnerDevice});
  return Run({"ip", "link", "set", device_, "up"});
}

}  // namespace assay::chaos
