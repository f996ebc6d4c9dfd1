// Where results are made: recorded with every sample's cell and every artifact.
#pragma once

#include <map>
#include <string>

#include "assay/v1/common.pb.h"

namespace assay::worker {

// The machine, the device (EngineOptions) and the build, for samples.
v1::Provenance MakeProvenance(const std::string& device, int num_threads);

// The build alone, for artifacts: the same on every machine, so that equal artifacts have equal
// bytes.
std::map<std::string, std::string> BuildProvenance();

// "Intel(R) Xeon(R) ...", from /proc/cpuinfo; the architecture when it is not told there.
std::string CpuModelName();

}  // namespace assay::worker
