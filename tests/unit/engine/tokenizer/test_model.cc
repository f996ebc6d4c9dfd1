#include "tests/unit/engine/tokenizer/test_model.h"

#include <cstdlib>

#include "base/file.h"
#include "base/status.h"

namespace assay::engine {
namespace {

using Json = nlohmann::ordered_json;

std::string MustRead(const std::string& path) {
  const absl::StatusOr<std::string> content = ReadFile(path);
  ASSAY_CHECK(content.ok(), "{}", content.status().ToString());
  return *content;
}

}  // namespace

Json ReadTestData(const std::string& name) {
  return Json::parse(MustRead(testing::SourcePath("tests/unit/engine/tokenizer/testdata/" + name)));
}

Json SmallTokenizerJson() {
  static const Json* const kData = new Json(ReadTestData("tokenizer_variants.json"));
  Json root;
  root["version"] = "1.0";
  const int64_t next_id = static_cast<int64_t>((*kData)["vocab"].size());
  for (const auto& [content, id] : {std::pair("<s>", next_id), std::pair("<e>", next_id + 1)}) {
    root["added_tokens"].push_back({{"id", id}, {"content", content}, {"special", true}});
  }
  root["normalizer"] = nullptr;
  root["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  root["post_processor"] = nullptr;
  root["decoder"] = {{"type", "ByteLevel"}};
  root["model"] = {{"type", "BPE"}, {"vocab", (*kData)["vocab"]}, {"merges", (*kData)["merges"]}};
  return root;
}

ModelFolder::ModelFolder(const std::string& tokenizer_json, const std::string& config_json) {
  Write("tokenizer.json", tokenizer_json);
  if (!config_json.empty()) Write("tokenizer_config.json", config_json);
}

void ModelFolder::Write(const std::string& name, const std::string& content) const {
  const absl::Status status = WriteFileAtomically(directory_ / name, content);
  ASSAY_CHECK(status.ok(), "{}", status.ToString());
}

std::unique_ptr<Tokenizer> SmallTokenizer() {
  const ModelFolder folder(SmallTokenizerJson().dump());
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(folder.path());
  ASSAY_CHECK(tokenizer.ok(), "{}", tokenizer.status().ToString());
  return *std::move(tokenizer);
}

std::unique_ptr<Tokenizer> LoadPackedTokenizer(const std::string& folder) {
  const testing::TemporaryDirectory unpacked;
  const std::string command = "gzip -dc '" + folder + "/tokenizer.json.gz' > '" +
                              (unpacked / "tokenizer.json") + "' && cp '" + folder +
                              "/tokenizer_config.json' '" + unpacked.path() + "'";
  ASSAY_CHECK(std::system(command.c_str()) == 0, "{}", command);
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(unpacked.path());
  ASSAY_CHECK(tokenizer.ok(), "{}", tokenizer.status().ToString());
  return *std::move(tokenizer);
}

}  // namespace assay::engine
