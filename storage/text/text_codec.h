// How texts are stored: zstd, level 3 (measured on chains of thought: 2.5x at 115-157 MB/s in and
// 550 MB/s out; level 9 gains 5 % at a third of the speed). The worker packs,
// so the wire and the database carry the same bytes.
//
// Packed bytes come from outside and are hostile: a size limit holds before anything is allocated.
// Functions are thread-safe.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace assay::storage {

// The `codec` column beside stored bytes, so that another compression can be added.
inline constexpr int kCodecZstd = 1;

// Above this no answer goes: 32k tokens are some 150 kB of text, and 128 kB of ids.
inline constexpr int64_t kMaxTextBytes = int64_t{64} << 20;

std::string CompressText(std::string_view text);
// How many bytes `packed` unpacks to, as its frame says and without unpacking it: a few nanoseconds
// a block. INVALID_ARGUMENT when it is not one whole zstd frame or says more than `max_bytes`.
absl::StatusOr<int64_t> UnpackedBytes(std::string_view packed, int64_t max_bytes = kMaxTextBytes);
// INVALID_ARGUMENT when `packed` is not one zstd frame or unpacks to more than `max_bytes`.
absl::StatusOr<std::string> DecompressText(std::string_view packed,
                                           int64_t max_bytes = kMaxTextBytes);

// Token ids as little-endian int32, compressed. INVALID_ARGUMENT also when the size is not a
// multiple of four.
std::string CompressTokenIds(std::span<const int32_t> ids);
absl::StatusOr<std::vector<int32_t>> DecompressTokenIds(std::string_view packed,
                                                        int64_t max_bytes = kMaxTextBytes);

}  // namespace assay::storage
