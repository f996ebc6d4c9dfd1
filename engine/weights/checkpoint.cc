#include "engine/weights/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/file.h"
#include "base/json_check.h"
#include "base/status.h"
#include "engine/weights/safetensors_file.h"

namespace assay::engine {
namespace {

using Json = nlohmann::json;

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr int64_t kMaxIndexBytes = 100'000'000;

// The name of a file in the folder itself.
bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name.find_first_of(std::string("/\\\0", 3)) == std::string::npos &&
         name[0] != '.' && name.ends_with(".safetensors");
}

// weight_map of an index: tensor name -> file name.
absl::StatusOr<std::map<std::string, std::string>> ReadIndex(const std::string& path) {
  ASSAY_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxIndexBytes));
  ASSAY_RETURN_IF_ERROR(CheckJson(text, path, /*max_depth=*/8));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
    return InvalidArgument("{}: no object 'weight_map'", path);
  }
  std::map<std::string, std::string> file_of;
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    if (!file.is_string() || !IsPlainFileName(file.get_ref<const std::string&>())) {
      return InvalidArgument(
          "{}: tensor {}: {} is not the plain name of a .safetensors file in the folder", path,
          tensor, file.dump());
    }
    file_of[tensor] = file.get<std::string>();
  }
  if (file_of.empty()) return InvalidArgument("{}: 'weight_map' names no tensor", path);
  return file_of;
}

class MappedCheckpoint final : public Checkpoint {
 public:
  explicit MappedCheckpoint(std::string model_dir) : model_dir_(std::move(model_dir)) {}

  // Maps one more file of the folder.
  absl::Status Add(const std::string& file_name) {
    const std::string path = model_dir_ + "/" + file_name;
    ASSAY_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file, SafetensorsFile::Open(path));
    for (const HeaderEntry& entry : file->entries()) {
      const auto [other, inserted] =
          tensors_.try_emplace(entry.name, Located{file.get(), &entry, file_name});
      if (!inserted) {
        return InvalidArgument("{}: tensor {}: also in {}", path, entry.name,
                               other->second.file_name);
      }
      names_.push_back(entry.name);
    }
    files_.push_back(std::move(file));
    return absl::OkStatus();
  }

  absl::Status CheckIndex(const std::map<std::string, std::string>& file_of) const {
    for (const auto& [tensor, file_name] : file_of) {
      const auto found = tensors_.find(tensor);
      if (found == tensors_.end() || found->second.file_name != file_name) {
        return InvalidArgument("{}/{}: tensor {}: said to be in {}, which does not hold it",
                               model_dir_, kIndexFile, tensor, file_name);
      }
    }
    return absl::OkStatus();
  }

  void SortNames() { std::sort(names_.begin(), names_.end()); }

  const std::vector<std::string>& names() const override { return names_; }
  bool Contains(std::string_view name) const override {
    return tensors_.find(name) != tensors_.end();
  }
  absl::StatusOr<TensorView> Find(std::string_view name) const override {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return NotFound("{}: no tensor {}", model_dir_, name);
    return found->second.file->View(*found->second.entry);
  }

 private:
  struct Located {
    const SafetensorsFile* file = nullptr;
    const HeaderEntry* entry = nullptr;
    std::string file_name;
  };

  const std::string model_dir_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, Located, std::less<>> tensors_;
  std::vector<std::string> names_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& model_dir) {
  auto checkpoint = std::make_unique<MappedCheckpoint>(model_dir);
  std::error_code error;
  if (std::filesystem::exists(model_dir + "/" + kSingleFile, error)) {
    ASSAY_RETURN_IF_ERROR(checkpoint->Add(kSingleFile));
  } else if (std::filesystem::exists(model_dir + "/" + kIndexFile, error)) {
    ASSAY_ASSIGN_OR_RETURN(const auto file_of, ReadIndex(model_dir + "/" + kIndexFile));
    std::vector<std::string> file_names;
    file_names.reserve(file_of.size());
    for (const auto& [tensor, file_name] : file_of) file_names.push_back(file_name);
    std::sort(file_names.begin(), file_names.end());
    file_names.erase(std::unique(file_names.begin(), file_names.end()), file_names.end());
    for (const std::string& file_name : file_names) {
      ASSAY_RETURN_IF_ERROR(checkpoint->Add(file_name));
    }
    ASSAY_RETURN_IF_ERROR(checkpoint->CheckIndex(file_of));
  } else {
    return NotFound("{}: neither {} nor {}", model_dir, kSingleFile, kIndexFile);
  }
  checkpoint->SortNames();
  return checkpoint;
}

absl::StatusOr<TensorView> Checkpoint::FindTyped(std::string_view name, DType dtype,
                                                 std::span<const int64_t> shape) const {
  ASSAY_ASSIGN_OR_RETURN(TensorView tensor, Find(name));
  if (tensor.dtype != dtype || !std::ranges::equal(tensor.shape, shape)) {
    return InvalidArgument("tensor {}: {} {}, expected {} {}", name, ToString(tensor.dtype),
                           ShapeString(tensor.shape), ToString(dtype), ShapeString(shape));
  }
  return tensor;
}

absl::StatusOr<std::vector<float>> Checkpoint::ReadFloats(std::string_view name,
                                                          std::span<const int64_t> shape) const {
  ASSAY_ASSIGN_OR_RETURN(const TensorView tensor, Find(name));
  if (!std::ranges::equal(tensor.shape, shape)) {
    return InvalidArgument("tensor {}: shape {}, expected {}", name, ShapeString(tensor.shape),
                           ShapeString(shape));
  }
  std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
  ASSAY_RETURN_IF_ERROR(ConvertToFloats(tensor, values));
  return values;
}

}  // namespace assay::engine
