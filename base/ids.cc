#include "base/ids.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/random.h>

#include <cstdint>

#include "base/status.h"

namespace assay {

std::string RandomId(std::string_view prefix) {
  uint64_t value = 0;
  ASSAY_CHECK(getrandom(&value, sizeof value, 0) == sizeof value);
  return fmt::format("{}-{:012x}", prefix, value & 0xffffffffffffULL);
}

std::string RandomHex(int num_bytes) {
  uint8_t bytes[64];
  ASSAY_CHECK(num_bytes >= 0 && num_bytes <= static_cast<int>(sizeof bytes));
  ASSAY_CHECK(getrandom(bytes, static_cast<size_t>(num_bytes), 0) == num_bytes);
  return fmt::format("{:02x}", fmt::join(bytes, bytes + num_bytes, ""));
}

}  // namespace assay
