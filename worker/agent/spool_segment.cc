#include "worker/agent/spool_segment.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/file.h"
#include "base/status.h"

namespace assay::worker {
namespace {

constexpr size_t kHeaderBytes = 8;

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  constexpr uint32_t kCastagnoli = 0x82F63B78;  // reflected
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kCastagnoli : 0);
    table[byte] = crc;
  }
  return table;
}

void AppendUint32(uint32_t value, std::string* out) {
  for (int shift = 0; shift < 32; shift += 8) out->push_back(static_cast<char>(value >> shift));
}

uint32_t ParseUint32(std::string_view bytes) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) {
    value |= static_cast<uint32_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  }
  return value;
}

}  // namespace

uint32_t Crc32c(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = MakeCrcTable();
  uint32_t crc = 0xFFFFFFFF;
  for (char c : bytes) crc = (crc >> 8) ^ kTable[(crc ^ static_cast<unsigned char>(c)) & 0xFF];
  return ~crc;
}

absl::StatusOr<SegmentContent> ReadSegment(const std::string& path) {
  ASSAY_ASSIGN_OR_RETURN(const std::string content, ReadFile(path));
  SegmentContent segment;
  std::string_view rest = content;
  while (rest.size() >= kHeaderBytes) {
    const size_t length = ParseUint32(rest);
    if (length == 0 || length > static_cast<size_t>(kMaxSpoolRecordBytes) ||
        length > rest.size() - kHeaderBytes) {
      break;  // zeros come from a file that was extended and not written
    }
    const std::string_view payload = rest.substr(kHeaderBytes, length);
    if (Crc32c(payload) != ParseUint32(rest.substr(4))) break;
    segment.records.emplace_back(payload);
    rest.remove_prefix(kHeaderBytes + length);
  }
  segment.num_torn_bytes = static_cast<int64_t>(rest.size());
  segment.num_good_bytes = static_cast<int64_t>(content.size() - rest.size());
  return segment;
}

absl::StatusOr<std::unique_ptr<SegmentWriter>> SegmentWriter::Create(const std::string& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return Unavailable("{}: cannot create: {}", path, std::strerror(errno));
  std::unique_ptr<SegmentWriter> writer(new SegmentWriter(path, fd));
  ASSAY_RETURN_IF_ERROR(SyncDirectory(std::filesystem::path(path).parent_path().string()));
  return writer;
}

SegmentWriter::~SegmentWriter() { ::close(fd_); }

absl::Status SegmentWriter::Append(const std::vector<std::string_view>& records) {
  std::string bytes;
  for (std::string_view record : records) {
    ASSAY_CHECK(!record.empty() && record.size() <= static_cast<size_t>(kMaxSpoolRecordBytes));
    AppendUint32(static_cast<uint32_t>(record.size()), &bytes);
    AppendUint32(Crc32c(record), &bytes);
    bytes += record;
  }
  size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t n = ::write(fd_, bytes.data() + written, bytes.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Unavailable("{}: write failed: {}", path_, std::strerror(errno));
    written += static_cast<size_t>(n);
  }
  if (::fdatasync(fd_) != 0) {
    return Unavailable("{}: fdatasync failed: {}", path_, std::strerror(errno));
  }
  size_bytes_ += static_cast<int64_t>(bytes.size());
  return absl::OkStatus();
}

}  // namespace assay::worker
