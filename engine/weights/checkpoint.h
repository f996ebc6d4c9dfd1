// The tensors of a model folder: one safetensors file (model.safetensors), or several with
// model.safetensors.index.json; the single file wins where both exist, as for Hugging Face. Files
// are mapped, not read; a tensor is a view that lives as long as the Checkpoint.
//
// Everything in the files is hostile until checked: header length, JSON, dtypes, shapes, offsets
// (in range, aligned to the element, no overlap, no holes), index entries that leave the folder,
// tensors named twice. What no check can prevent: a file that is cut short while it is mapped ends
// the process with SIGBUS.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace assay::engine {

enum class DType { kBool, kU8, kI8, kI16, kI32, kI64, kF16, kBF16, kF32, kF64 };

int SizeOf(DType dtype);                 // bytes of one element
std::string_view ToString(DType dtype);  // as safetensors spells it: "BF16"

struct TensorView {
  std::string name;
  DType dtype = DType::kBF16;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;

  int64_t num_elements() const;
};

// "[512, 128]", for messages.
std::string ShapeString(std::span<const int64_t> shape);

// F32, BF16 or F16 to float32. INVALID_ARGUMENT names a tensor of another dtype. `out` has
// num_elements().
absl::Status ConvertToFloats(const TensorView& tensor, std::span<float> out);

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

  // Find, where the tensor must have this dtype and shape: INVALID_ARGUMENT otherwise.
  absl::StatusOr<TensorView> FindTyped(std::string_view name, DType dtype,
                                       std::span<const int64_t> shape) const;

  // Find + conversion of F32, BF16 or F16 to float32. INVALID_ARGUMENT when the shape is not
  // `shape` or the dtype is none of the three.
  absl::StatusOr<std::vector<float>> ReadFloats(std::string_view name,
                                                std::span<const int64_t> shape) const;
};

// A tensor to be written: its own bytes, or a view of somebody's (a mapped file) when it has none.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::string bytes;
  std::span<const std::byte> view;
};

// Writes one safetensors file and fsyncs it: header, then the tensors without holes between them
// (readers refuse holes), those with larger elements first and otherwise as given, so that each is
// aligned to its element. The result depends on nothing but the arguments. INVALID_ARGUMENT when
// bytes and shape disagree or a name comes twice; UNAVAILABLE when the disk refuses.
absl::Status WriteSafetensors(const std::string& path, const std::vector<TensorToWrite>& tensors);

}  // namespace assay::engine
