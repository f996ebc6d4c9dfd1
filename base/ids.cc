#include "base/ids.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <cstdint>

#include "base/status.h"

namespace assay {

std::string RandomId(std::string_view prefix) {
  uint64_t value = 0;
  ASSAY_CHECK(getrandom(&value, sizeof value, 0) == sizeof value);
  return fmt::format("{}-{:012x}", prefix, value & 0xffffffffffffULL);
}

}  // namespace assay
