#include "base/model_files.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>

#include "base/hash.h"
#include "base/status.h"

namespace assay {
namespace {

namespace fs = std::filesystem;

bool Decides(const std::string& file_name) {
  static const std::set<std::string> kNames = {"config.json",         "generation_config.json",
                                               "tokenizer.json",      "tokenizer_config.json",
                                               "chat_template.jinja", "assay_quant.json"};
  return kNames.contains(file_name) || file_name.ends_with(".safetensors") ||
         file_name.ends_with(".safetensors.index.json");
}

bool LeavesItsRoot(const fs::path& name) {
  return std::any_of(name.begin(), name.end(), [](const fs::path& part) { return part == ".."; });
}

}  // namespace

absl::StatusOr<std::string> FindModel(const std::vector<std::string>& roots,
                                      const std::string& name) {
  const fs::path path(name);
  std::error_code ignored;
  if (path.is_absolute()) {
    if (fs::exists(path / "config.json", ignored)) return path.string();
    return NotFound("model folder {}: has no config.json", name);
  }
  if (name.empty() || LeavesItsRoot(path)) {
    return InvalidArgument("model name '{}': must stay inside the model roots", name);
  }
  for (const std::string& root : roots) {
    if (fs::exists(fs::path(root) / path / "config.json", ignored)) {
      return (fs::path(root) / path).string();
    }
  }
  return NotFound(
      "model '{}': no folder of that name with a config.json under {}; add its root with "
      "--models",
      name, roots.empty() ? "(no model roots)" : fmt::format("{}", fmt::join(roots, ", ")));
}

std::vector<std::string> ListModels(const std::vector<std::string>& roots) {
  std::set<std::string> names;
  for (const std::string& root : roots) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(root, error)) {
      std::error_code ignored;
      if (fs::exists(entry.path() / "config.json", ignored)) {
        names.insert(entry.path().filename().string());
      }
    }
  }
  return {names.begin(), names.end()};
}

absl::StatusOr<std::string> ModelHasher::Hash(const std::string& model_dir) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(model_dir, error)) {
    const std::string name = entry.path().filename().string();
    if (Decides(name)) names.push_back(name);
  }
  if (error) return NotFound("{}: cannot list: {}", model_dir, error.message());
  std::sort(names.begin(), names.end());
  const auto has = [&](auto predicate) {
    return std::any_of(names.begin(), names.end(), predicate);
  };
  if (!has([](const std::string& name) { return name == "config.json"; })) {
    return NotFound("{}: no config.json: not a model folder", model_dir);
  }
  if (!has([](const std::string& name) { return name.ends_with(".safetensors"); })) {
    return NotFound("{}: no *.safetensors: the weights are missing", model_dir);
  }

  Sha256 hash;
  for (const std::string& name : names) {
    const std::string path = (fs::path(model_dir) / name).string();
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) return NotFound("{}: cannot stat", path);
    const std::string key = fmt::format("{}\n{}\n{}\n{}.{:09}", path, info.st_size, info.st_ino,
                                        info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
    std::string file_hash;
    {
      const std::lock_guard lock(mutex_);
      const auto found = hash_of_file_.find(key);
      if (found != hash_of_file_.end()) file_hash = found->second;
    }
    if (file_hash.empty()) {
      ASSAY_ASSIGN_OR_RETURN(file_hash, Sha256OfFile(path));
      const std::lock_guard lock(mutex_);
      hash_of_file_[key] = file_hash;
    }
    hash.UpdateField(name);
    hash.UpdateField(file_hash);
  }
  return hash.HexDigest();
}

}  // namespace assay
