// The tensors of a model folder: one safetensors file, or several with model.safetensors.index.json.
// Files are mapped, not read; a tensor is a view that lives as long as the Checkpoint.
//
// Everything in the files is hostile until checked: header length, JSON, dtypes, shapes, offsets
// (in range, aligned to the element, no overlap), index entries that leave the folder.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace assay::engine {

enum class DType { kBool, kU8, kI8, kI16, kI32, kI64, kF16, kBF16, kF32, kF64 };

int SizeOf(DType dtype);             // bytes of one element
std::string_view ToString(DType dtype);  // as safetensors spells it: "BF16"

struct TensorView {
  std::string name;
  DType dtype = DType::kBF16;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;

  int64_t num_elements() const;
};

// Immutable once open; thread-safe.
class Checkpoint {
 public:
  // NOT_FOUND without any safetensors file; INVALID_ARGUMENT naming file and tensor for what does
  // not hold; DATA_LOSS when a file is shorter than its header says.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& model_dir);
  virtual ~Checkpoint() = default;

  // Names in lexical order.
  virtual const std::vector<std::string>& names() const = 0;
  virtual bool Contains(std::string_view name) const = 0;

  // NOT_FOUND names the tensor and the folder.
  virtual absl::StatusOr<TensorView> Find(std::string_view name) const = 0;

  // Find + conversion of F32, BF16 or F16 to float32. INVALID_ARGUMENT when the shape is not
  // `shape` or the dtype is none of the three.
  absl::StatusOr<std::vector<float>> ReadFloats(std::string_view name,
                                                std::span<const int64_t> shape) const;
};

// A tensor to be written.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::string bytes;
};

// Writes one safetensors file: header, then the tensors in the order given, each 8-byte aligned.
// The result depends on nothing but the arguments. UNAVAILABLE when the disk refuses.
absl::Status WriteSafetensors(const std::string& path, const std::vector<TensorToWrite>& tensors);

}  // namespace assay::engine
