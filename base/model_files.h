// Model folders: found by name under roots, named by the hash of their content.
//
// A sweep is planned for a model with a certain content, and a worker must run that content and no
// other. So both sides hash the files that decide what the model says: weights, configuration,
// tokenizer and chat template.
#pragma once

#include <absl/status/statusor.h>

#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace assay {

// The folder of the model `name`: `name` itself when it is an absolute path, else the first
// root/name that holds a config.json. A relative name may have slashes but must not leave the root.
// NOT_FOUND lists the roots searched.
absl::StatusOr<std::string> FindModel(const std::vector<std::string>& roots,
                                      const std::string& name);

// The names of folders with a config.json under the roots, sorted: for error messages and
// completion.
std::vector<std::string> ListModels(const std::vector<std::string>& roots);

// Hashes model folders; each file once while its path, size, inode and modification time stay the
// same. Thread-safe.
class ModelHasher {
 public:
  // SHA-256 over (name, SHA-256) of the folder's *.safetensors, *.safetensors.index.json,
  // config.json, generation_config.json, tokenizer.json, tokenizer_config.json,
  // chat_template.jinja and assay_quant.json, as far as they exist, in name order. NOT_FOUND when
  // the folder has no config.json or no weights.
  absl::StatusOr<std::string> Hash(const std::string& model_dir);

 private:
  std::mutex mutex_;
  std::map<std::string, std::string> hash_of_file_;  // key: path, size, inode, mtime
};

}  // namespace assay
