// A checkpoint that holds what a test gives it.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "engine/weights/checkpoint.h"

namespace assay::engine {

template <typename T>
std::string BytesOf(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

class MemoryCheckpoint final : public Checkpoint {
 public:
  MemoryCheckpoint() = default;
  explicit MemoryCheckpoint(std::vector<TensorToWrite> tensors) {
    for (TensorToWrite& tensor : tensors) Add(std::move(tensor));
  }

  void Add(TensorToWrite tensor) {
    Remove(tensor.name);
    names_.push_back(tensor.name);
    tensors_.push_back(std::move(tensor));
  }
  void AddFloats(const std::string& name, std::vector<int64_t> shape,
                 const std::vector<float>& values) {
    Add({.name = name, .dtype = DType::kF32, .shape = std::move(shape), .bytes = BytesOf(values)});
  }
  void Remove(const std::string& name) {
    std::erase(names_, name);
    std::erase_if(tensors_, [&](const TensorToWrite& tensor) { return tensor.name == name; });
  }

  const std::vector<std::string>& names() const override { return names_; }
  bool Contains(std::string_view name) const override { return Find(name).ok(); }
  absl::StatusOr<TensorView> Find(std::string_view name) const override {
    for (const TensorToWrite& tensor : tensors_) {
      if (tensor.name == name) {
        return TensorView{.name = tensor.name,
                          .dtype = tensor.dtype,
                          .shape = tensor.shape,
                          .bytes = std::as_bytes(std::span(tensor.bytes))};
      }
    }
    return NotFound("memory: no tensor {}", name);
  }

 private:
  std::vector<std::string> names_;
  std::vector<TensorToWrite> tensors_;
};

}  // namespace assay::engine
