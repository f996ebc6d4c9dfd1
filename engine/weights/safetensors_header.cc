#include "engine/weights/safetensors_header.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/json_check.h"
#include "base/status.h"

namespace assay::engine {
namespace {

using Json = nlohmann::json;

constexpr DType kDTypes[] = {DType::kBool, DType::kU8,  DType::kI8,   DType::kI16, DType::kI32,
                             DType::kI64,  DType::kF16, DType::kBF16, DType::kF32, DType::kF64};
constexpr size_t kMaxDimensions = 16;

std::optional<DType> DTypeNamed(std::string_view name) {
  for (const DType dtype : kDTypes) {
    if (ToString(dtype) == name) return dtype;
  }
  return std::nullopt;
}

// a * b, or nothing when it does not fit an int64.
std::optional<int64_t> Product(int64_t a, int64_t b) {
  int64_t product;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

// The element count of `entry.shape` times the element size.
absl::StatusOr<uint64_t> ByteSize(const HeaderEntry& entry, const std::string& what) {
  int64_t size = SizeOf(entry.dtype);
  // A zero hides an overflow of the others, so the product is taken without zeros.
  bool empty = false;
  for (const int64_t extent : entry.shape) {
    empty = empty || extent == 0;
    const std::optional<int64_t> product = Product(size, std::max<int64_t>(extent, 1));
    if (!product) return InvalidArgument("{}: shape {} overflows", what, ShapeString(entry.shape));
    size = *product;
  }
  return empty ? 0 : static_cast<uint64_t>(size);
}

absl::StatusOr<HeaderEntry> ParseEntry(const std::string& name, const Json& json,
                                       const std::string& what) {
  HeaderEntry entry{.name = name};
  if (!json.is_object()) return InvalidArgument("{}: its entry is no object", what);
  for (const auto& [key, value] : json.items()) {
    if (key != "dtype" && key != "shape" && key != "data_offsets") {
      return InvalidArgument("{}: unknown key '{}'", what, key);
    }
  }
  const auto dtype = json.find("dtype");
  if (dtype == json.end() || !dtype->is_string()) {
    return InvalidArgument("{}: no dtype", what);
  }
  const std::optional<DType> known = DTypeNamed(dtype->get_ref<const std::string&>());
  if (!known) {
    return InvalidArgument(
        "{}: dtype '{}' is not supported; supported are BOOL, U8, I8, I16, I32, I64, F16, BF16, "
        "F32, F64",
        what, dtype->get_ref<const std::string&>());
  }
  entry.dtype = *known;

  const auto shape = json.find("shape");
  if (shape == json.end() || !shape->is_array() || shape->size() > kMaxDimensions) {
    return InvalidArgument("{}: no shape of at most {} dimensions", what, kMaxDimensions);
  }
  for (const Json& extent : *shape) {
    if (!extent.is_number_unsigned() ||
        extent.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return InvalidArgument("{}: a shape of whole numbers is needed, not {}", what, extent.dump());
    }
    entry.shape.push_back(extent.get<int64_t>());
  }

  const auto offsets = json.find("data_offsets");
  if (offsets == json.end() || !offsets->is_array() || offsets->size() != 2 ||
      !(*offsets)[0].is_number_unsigned() || !(*offsets)[1].is_number_unsigned()) {
    return InvalidArgument("{}: data_offsets of two whole numbers are needed", what);
  }
  entry.begin = (*offsets)[0].get<uint64_t>();
  entry.end = (*offsets)[1].get<uint64_t>();
  ASSAY_ASSIGN_OR_RETURN(const uint64_t size, ByteSize(entry, what));
  if (entry.end < entry.begin || entry.end - entry.begin != size) {
    return InvalidArgument("{}: data_offsets [{}, {}] do not hold the {} bytes of {} {}", what,
                           entry.begin, entry.end, size, ToString(entry.dtype),
                           ShapeString(entry.shape));
  }
  return entry;
}

// The entries, sorted by offset, must tile [0, data_size).
absl::Status CheckTiling(const std::vector<HeaderEntry>& entries, uint64_t data_offset,
                         uint64_t data_size, const std::string& path) {
  uint64_t end = 0;
  for (const HeaderEntry& entry : entries) {
    if (entry.begin != end) {
      return InvalidArgument("{}: tensor {}: starts at {}, where the one before ends at {}: {}",
                             path, entry.name, entry.begin, end,
                             entry.begin < end ? "they overlap" : "a hole");
    }
    end = entry.end;
    if (end > data_size) {
      return DataLoss(
          "{}: tensor {}: ends at byte {} of the data, but the file holds {}: cut short?", path,
          entry.name, end, data_size);
    }
    if ((data_offset + entry.begin) % static_cast<uint64_t>(SizeOf(entry.dtype)) != 0) {
      return InvalidArgument(
          "{}: tensor {}: byte {} is not aligned to {}; save the file with a current safetensors",
          path, entry.name, data_offset + entry.begin, ToString(entry.dtype));
    }
  }
  if (end != data_size) {
    return InvalidArgument("{}: {} bytes follow the last tensor", path, data_size - end);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<HeaderEntry>> ParseSafetensorsHeader(std::string_view json,
                                                                uint64_t data_offset,
                                                                uint64_t data_size,
                                                                const std::string& path) {
  // An object of objects of arrays.
  ASSAY_RETURN_IF_ERROR(CheckJson(json, path, /*max_depth=*/3));
  const Json header = Json::parse(json.begin(), json.end(), nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) return InvalidArgument("{}: the header is no JSON object", path);
  std::vector<HeaderEntry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") continue;
    ASSAY_ASSIGN_OR_RETURN(HeaderEntry entry,
                           ParseEntry(name, value, fmt::format("{}: tensor {}", path, name)));
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const HeaderEntry& a, const HeaderEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  ASSAY_RETURN_IF_ERROR(CheckTiling(entries, data_offset, data_size, path));
  return entries;
}

}  // namespace assay::engine
