#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/status.h"
#include "engine/weights/checkpoint.h"

namespace assay::engine {
namespace {

std::span<const std::byte> BytesOf(const TensorToWrite& tensor) {
  if (tensor.bytes.empty()) return tensor.view;
  return std::as_bytes(std::span(tensor.bytes));
}

absl::Status CheckTensors(const std::vector<TensorToWrite>& tensors, const std::string& path) {
  std::set<std::string_view> names;
  for (const TensorToWrite& tensor : tensors) {
    if (tensor.name == "__metadata__" || !names.insert(tensor.name).second) {
      return InvalidArgument("{}: tensor {}: the name is taken", path, tensor.name);
    }
    const TensorView view{.shape = tensor.shape};
    const int64_t size = view.num_elements() * SizeOf(tensor.dtype);
    if (std::cmp_not_equal(BytesOf(tensor).size(), size)) {
      return InvalidArgument("{}: tensor {}: {} bytes for {} {}", path, tensor.name,
                             BytesOf(tensor).size(), ToString(tensor.dtype),
                             ShapeString(tensor.shape));
    }
  }
  return absl::OkStatus();
}

// Length and JSON, padded with spaces so that the data starts at a multiple of 8.
std::string Header(const std::vector<const TensorToWrite*>& tensors) {
  nlohmann::ordered_json json = {{"__metadata__", {{"format", "pt"}}}};
  uint64_t offset = 0;
  for (const TensorToWrite* tensor : tensors) {
    const uint64_t end = offset + BytesOf(*tensor).size();
    json[tensor->name] = {{"dtype", std::string(ToString(tensor->dtype))},
                          {"shape", tensor->shape},
                          {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  std::string header(sizeof length, '\0');
  std::memcpy(header.data(), &length, sizeof length);
  return header + text;
}

absl::Status WriteAll(int fd, const void* data, size_t size, const std::string& path) {
  const char* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = ::write(fd, bytes, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Unavailable("{}: write failed: {}", path, std::strerror(errno));
    bytes += n;
    size -= static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::Status WriteFile(int fd, const std::vector<const TensorToWrite*>& tensors,
                       const std::string& path) {
  const std::string header = Header(tensors);
  ASSAY_RETURN_IF_ERROR(WriteAll(fd, header.data(), header.size(), path));
  for (const TensorToWrite* tensor : tensors) {
    const std::span<const std::byte> bytes = BytesOf(*tensor);
    ASSAY_RETURN_IF_ERROR(WriteAll(fd, bytes.data(), bytes.size(), path));
  }
  if (::fsync(fd) != 0) return Unavailable("{}: fsync failed: {}", path, std::strerror(errno));
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteSafetensors(const std::string& path, const std::vector<TensorToWrite>& tensors) {
  ASSAY_RETURN_IF_ERROR(CheckTensors(tensors, path));
  std::vector<const TensorToWrite*> ordered;
  ordered.reserve(tensors.size());
  for (const TensorToWrite& tensor : tensors) ordered.push_back(&tensor);
  std::stable_sort(ordered.begin(), ordered.end(),
                   [](const TensorToWrite* a, const TensorToWrite* b) {
                     return SizeOf(a->dtype) > SizeOf(b->dtype);
                   });
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return Unavailable("{}: cannot create: {}", path, std::strerror(errno));
  absl::Status status = WriteFile(fd, ordered, path);
  if (::close(fd) != 0 && status.ok()) {
    status = Unavailable("{}: close failed: {}", path, std::strerror(errno));
  }
  return status;
}

}  // namespace assay::engine
