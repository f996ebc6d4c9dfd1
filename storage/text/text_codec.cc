#include "storage/text/text_codec.h"

#include <zstd.h>

#include <bit>
#include <cstring>

#include "base/status.h"

namespace assay::storage {
namespace {

constexpr int kLevel = 3;

static_assert(std::endian::native == std::endian::little, "stored ids are little-endian int32");

}  // namespace

std::string CompressText(std::string_view text) {
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  const size_t size = ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), kLevel);
  ASSAY_CHECK(ZSTD_isError(size) == 0, "zstd: {}", ZSTD_getErrorName(size));
  packed.resize(size);
  return packed;
}

absl::StatusOr<int64_t> UnpackedBytes(std::string_view packed, int64_t max_bytes) {
  // The header's own size cannot be trusted before the limit holds; a frame that does not tell its
  // size is none that CompressText made.
  const unsigned long long size = ZSTD_getFrameContentSize(packed.data(), packed.size());
  if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN) {
    return InvalidArgument("a packed text of {} bytes is not a zstd frame of known size",
                           packed.size());
  }
  if (size > static_cast<unsigned long long>(max_bytes)) {
    return InvalidArgument("a packed text unpacks to {} bytes; at most {} are allowed", size,
                           max_bytes);
  }
  if (ZSTD_findFrameCompressedSize(packed.data(), packed.size()) != packed.size()) {
    return InvalidArgument("a packed text of {} bytes is cut, or something follows it",
                           packed.size());
  }
  return static_cast<int64_t>(size);
}

absl::StatusOr<std::string> DecompressText(std::string_view packed, int64_t max_bytes) {
  ASSAY_ASSIGN_OR_RETURN(const int64_t size, UnpackedBytes(packed, max_bytes));
  std::string text(static_cast<size_t>(size), '\0');
  const size_t unpacked = ZSTD_decompress(text.data(), text.size(), packed.data(), packed.size());
  if (ZSTD_isError(unpacked) != 0 || unpacked != text.size()) {
    return InvalidArgument("a packed text of {} bytes is damaged: {}", packed.size(),
                           ZSTD_getErrorName(unpacked));
  }
  return text;
}

std::string CompressTokenIds(std::span<const int32_t> ids) {
  return CompressText(
      std::string_view(reinterpret_cast<const char*>(ids.data()), ids.size_bytes()));
}

absl::StatusOr<std::vector<int32_t>> DecompressTokenIds(std::string_view packed,
                                                        int64_t max_bytes) {
  ASSAY_ASSIGN_OR_RETURN(const std::string bytes, DecompressText(packed, max_bytes));
  if (bytes.size() % sizeof(int32_t) != 0) {
    return InvalidArgument("packed token ids unpack to {} bytes, not a multiple of 4",
                           bytes.size());
  }
  std::vector<int32_t> ids(bytes.size() / sizeof(int32_t));
  if (!ids.empty()) std::memcpy(ids.data(), bytes.data(), bytes.size());
  return ids;
}

}  // namespace assay::storage
