// Random identifiers: sweeps, leases, worker incarnations.
#pragma once

#include <string>
#include <string_view>

namespace assay {

// `prefix` + '-' + 12 lower-case hexadecimal digits from the kernel's random source.
std::string RandomId(std::string_view prefix);

// `num_bytes` (at most 64) from the kernel's random source, in lower-case hexadecimal.
std::string RandomHex(int num_bytes);

}  // namespace assay
