// One file of the spool: records one after another, each
//
//   4 bytes  length of the payload, little-endian
//   4 bytes  CRC-32C of the payload, little-endian
//   payload
//
// A segment is only ever appended to, by one process in one life; what a crash left behind is read
// and never written again. Reading stops at the first record that is not whole: after a crash that
// is the tail that was being written, and everything before it is intact.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace assay::worker {

inline constexpr int64_t kMaxSpoolRecordBytes = int64_t{16} << 20;

uint32_t Crc32c(std::string_view bytes);

struct SegmentContent {
  std::vector<std::string> records;
  int64_t num_good_bytes = 0;
  int64_t num_torn_bytes = 0;  // behind the last whole record
};

// NOT_FOUND or UNAVAILABLE when the file cannot be read; torn or foreign bytes are no error.
absl::StatusOr<SegmentContent> ReadSegment(const std::string& path);

// Not thread-safe.
class SegmentWriter {
 public:
  // Creates `path`, which must not exist, and syncs its folder. UNAVAILABLE when the disk refuses.
  static absl::StatusOr<std::unique_ptr<SegmentWriter>> Create(const std::string& path);
  ~SegmentWriter();
  SegmentWriter(const SegmentWriter&) = delete;
  SegmentWriter& operator=(const SegmentWriter&) = delete;

  // Appends the records and syncs them to disk. After UNAVAILABLE (disk full, I/O error) the file
  // may hold any part of them and must not be appended to again: the caller goes on with a new
  // segment, and readers stop at the torn record.
  absl::Status Append(const std::vector<std::string_view>& records);

  int64_t size_bytes() const { return size_bytes_; }

 private:
  SegmentWriter(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

  const std::string path_;
  const int fd_;
  int64_t size_bytes_ = 0;
};

}  // namespace assay::worker
