#include "worker/runner/provenance.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <fstream>

#include "base/numerics_version.h"
#include "base/status.h"
#include "base/version.h"
#include "engine/runtime/engine.h"
#include "worker/wire/utf8.h"

namespace assay::worker {
namespace {

std::string Hostname() {
  char name[256] = {};
  if (::gethostname(name, sizeof name - 1) != 0) return "unknown";
  return ValidUtf8(name);
}

}  // namespace

std::string CpuModelName() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (!line.starts_with("model name")) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return ValidUtf8(line.substr(colon + 2));
  }
  struct utsname machine {};
  return ::uname(&machine) == 0 ? machine.machine : "unknown";
}

v1::Provenance MakeProvenance(const std::string& device, int num_threads) {
  v1::Provenance provenance;
  provenance.set_git_commit(GitCommit());
  provenance.set_assay_version(Version());
  provenance.set_build_type(BuildType());
  provenance.set_compiler(Compiler());
  provenance.set_hostname(Hostname());
  if (device == "cpu") {
    provenance.set_device(
        fmt::format("{} ({} thread{})", CpuModelName(), num_threads, num_threads == 1 ? "" : "s"));
    provenance.set_backend("cpu");
  } else {
    provenance.set_device(ValidUtf8(engine::DeviceName(device)));
    provenance.set_backend("cuda");
  }
  provenance.set_engine_numerics_version(engine::NumericsVersion(device));
  return provenance;
}

std::map<std::string, std::string> BuildProvenance() {
  return {{"assay_version", Version()},
          {"git_commit", GitCommit()},
          {"compiler", Compiler()},
          {"engine_numerics_version", kCpuNumericsVersion}};
}

}  // namespace assay::worker
