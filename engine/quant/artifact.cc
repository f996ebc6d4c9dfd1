#include "engine/quant/artifact.h"

#include <fcntl.h>
#include <stdio.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "base/file.h"
#include "base/ids.h"
#include "base/status.h"

namespace assay::engine {
namespace {

namespace fs = std::filesystem;

// What the engine or the tokenizer of a model folder reads, besides its tensors.
constexpr const char* kCopiedFiles[] = {"config.json",        "generation_config.json",
                                        "tokenizer.json",     "tokenizer_config.json",
                                        "vocab.json",         "merges.txt",
                                        "added_tokens.json",  "special_tokens_map.json",
                                        "chat_template.json", "chat_template.jinja"};
constexpr int64_t kMaxCopiedBytes = int64_t{256} << 20;

// Removes the folder unless it was given its name.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {}
  ~TemporaryFolder() {
    std::error_code error;
    if (!path_.empty()) fs::remove_all(path_, error);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  void Keep() { path_.clear(); }

 private:
  std::string path_;
};

absl::Status CopyFiles(const std::string& model_dir, const std::string& output_dir) {
  for (const char* name : kCopiedFiles) {
    std::error_code error;
    if (!fs::exists(model_dir + "/" + name, error)) continue;
    ASSAY_ASSIGN_OR_RETURN(const std::string content,
                           ReadFile(model_dir + "/" + name, kMaxCopiedBytes));
    ASSAY_RETURN_IF_ERROR(WriteFileAtomically(output_dir + "/" + name, content));
  }
  return absl::OkStatus();
}

// All tensors of the artifact, by name; those of the model are views of its mapped files.
absl::StatusOr<std::vector<TensorToWrite>> AllTensors(const Checkpoint& checkpoint,
                                                      const Artifact& artifact) {
  std::map<std::string, TensorToWrite> by_name;
  for (const std::string& name : checkpoint.names()) {
    if (artifact.dropped.contains(name)) continue;
    ASSAY_ASSIGN_OR_RETURN(const TensorView tensor, checkpoint.Find(name));
    by_name[name] = {
        .name = name, .dtype = tensor.dtype, .shape = tensor.shape, .view = tensor.bytes};
  }
  for (const TensorToWrite& tensor : artifact.tensors) {
    by_name[tensor.name] = {
        .name = tensor.name,
        .dtype = tensor.dtype,
        .shape = tensor.shape,
        .view = tensor.bytes.empty() ? tensor.view : std::as_bytes(std::span(tensor.bytes))};
  }
  std::vector<TensorToWrite> tensors;
  tensors.reserve(by_name.size());
  for (auto& [name, tensor] : by_name) tensors.push_back(std::move(tensor));
  return tensors;
}

// rename() would replace an empty folder of that name.
absl::Status RenameToNew(const std::string& from, const std::string& to) {
  int failed = ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE);
  if (failed != 0 && (errno == EINVAL || errno == ENOSYS)) {
    // A file system without the flag (NFS): at worst an empty folder made just now is replaced.
    failed = ::rename(from.c_str(), to.c_str());
  }
  if (failed == 0) return absl::OkStatus();
  if (errno == EEXIST || errno == ENOTEMPTY) return AlreadyExists("{}: exists already", to);
  return Unavailable("{}: rename failed: {}", to, std::strerror(errno));
}

}  // namespace

absl::Status WriteArtifact(const std::string& model_dir, const Checkpoint& checkpoint,
                           const Artifact& artifact, const std::string& output_dir) {
  std::string name = output_dir;
  while (name.size() > 1 && name.back() == '/') name.pop_back();
  std::error_code error;
  if (fs::exists(name, error)) return AlreadyExists("{}: exists already", name);
  const std::string parent = fs::path(name).parent_path().string();
  if (!parent.empty()) ASSAY_RETURN_IF_ERROR(MakeDirectories(parent));

  TemporaryFolder folder(RandomId(name + ".tmp"));
  ASSAY_RETURN_IF_ERROR(MakeDirectories(folder.path()));
  ASSAY_RETURN_IF_ERROR(CopyFiles(model_dir, folder.path()));
  ASSAY_RETURN_IF_ERROR(
      WriteFileAtomically(folder.path() + "/" + kDescriptionFile, ToJson(artifact.description)));
  ASSAY_ASSIGN_OR_RETURN(const std::vector<TensorToWrite> tensors,
                         AllTensors(checkpoint, artifact));
  ASSAY_RETURN_IF_ERROR(WriteSafetensors(folder.path() + "/model.safetensors", tensors));
  ASSAY_RETURN_IF_ERROR(SyncDirectory(folder.path()));
  ASSAY_RETURN_IF_ERROR(RenameToNew(folder.path(), name));
  folder.Keep();
  return SyncDirectory(parent.empty() ? "." : parent);
}

}  // namespace assay::engine
