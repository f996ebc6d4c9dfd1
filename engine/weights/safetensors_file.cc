#include "engine/weights/safetensors_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/status.h"

namespace assay::engine {
namespace {

constexpr uint64_t kLengthBytes = 8;

// The whole file, mapped.
absl::StatusOr<std::span<const std::byte>> MapFile(const std::string& path) {
  // Without O_NONBLOCK a FIFO of that name would hang the reader.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return NotFound("{}: cannot open: {}", path, std::strerror(errno));
  struct stat info {};
  absl::StatusOr<std::span<const std::byte>> result;
  if (::fstat(fd, &info) != 0) {
    result = Unavailable("{}: cannot stat: {}", path, std::strerror(errno));
  } else if (!S_ISREG(info.st_mode)) {
    result = InvalidArgument("{}: not a regular file", path);
  } else if (info.st_size < static_cast<off_t>(kLengthBytes)) {
    result = DataLoss("{}: {} bytes, too short for a safetensors file", path, info.st_size);
  } else {
    const auto size = static_cast<size_t>(info.st_size);
    void* const address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (address == MAP_FAILED) {
      result = Unavailable("{}: cannot map {} bytes: {}", path, size, std::strerror(errno));
    } else {
      result = std::span(static_cast<const std::byte*>(address), size);
    }
  }
  ::close(fd);
  return result;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  ASSAY_ASSIGN_OR_RETURN(const std::span<const std::byte> mapping, MapFile(path));
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile(mapping));
  uint64_t length = 0;  // little-endian, as this machine is
  std::memcpy(&length, mapping.data(), sizeof length);
  if (length > kMaxSafetensorsHeader) {
    return InvalidArgument(
        "{}: a header of {} bytes, more than the limit of {}: no safetensors file?", path, length,
        kMaxSafetensorsHeader);
  }
  if (length > mapping.size() - kLengthBytes) {
    return DataLoss("{}: a header of {} bytes in a file of {}: cut short?", path, length,
                    mapping.size());
  }
  const std::string_view json(reinterpret_cast<const char*>(mapping.data()) + kLengthBytes, length);
  file->data_ = mapping.subspan(kLengthBytes + length);
  ASSAY_ASSIGN_OR_RETURN(file->entries_, ParseSafetensorsHeader(json, kLengthBytes + length,
                                                                file->data_.size(), path));
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  ::munmap(const_cast<std::byte*>(mapping_.data()), mapping_.size());
}

TensorView SafetensorsFile::View(const HeaderEntry& entry) const {
  return {.name = entry.name,
          .dtype = entry.dtype,
          .shape = entry.shape,
          .bytes = data_.subspan(entry.begin, entry.end - entry.begin)};
}

}  // namespace assay::engine
