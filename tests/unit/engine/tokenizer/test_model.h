// Model folders for the tokenizer's tests.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/tokenizer/tokenizer.h"
#include "tests/testing/paths.h"

namespace assay::engine {

// A file of tests/unit/engine/tokenizer/testdata.
nlohmann::ordered_json ReadTestData(const std::string& name);

// A small valid tokenizer.json: the vocabulary of tokenizer_variants.json, the GPT-2 pattern, and
// the special tokens <s> and <e>. Tests change it.
nlohmann::ordered_json SmallTokenizerJson();

// A folder with the given tokenizer.json, and a tokenizer_config.json when there is one.
class ModelFolder {
 public:
  explicit ModelFolder(const std::string& tokenizer_json, const std::string& config_json = "");

  const std::string& path() const { return directory_.path(); }
  // Adds a file.
  void Write(const std::string& name, const std::string& content) const;

 private:
  testing::TemporaryDirectory directory_;
};

// The tokenizer of SmallTokenizerJson.
std::unique_ptr<Tokenizer> SmallTokenizer();

// The tokenizer in a folder of ../shared/data/tokenizers, unpacked; aborts when it cannot be read.
std::unique_ptr<Tokenizer> LoadPackedTokenizer(const std::string& folder);

}  // namespace assay::engine
