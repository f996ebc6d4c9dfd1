// The real vocabularies, against what Hugging Face and llama.cpp say of them.
#include <fstream>
#include <sstream>

#include "base/file.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/tokenizer/test_model.h"

namespace assay::engine {
namespace {

using testing::kNoShared;
using testing::SharedPath;
using Ids = std::vector<int32_t>;

// Every line of a reference file: ids, ids with special tokens, text again, and text in pieces.
void CheckReference(const Tokenizer& tokenizer, const std::string& path) {
  std::ifstream file(path);
  std::string line;
  int num_lines = 0;
  while (std::getline(file, line)) {
    const auto json = nlohmann::json::parse(line);
    const auto text = json["text"].get<std::string>();
    const Ids ids = tokenizer.Encode(text, false);
    EXPECT_EQ(ids, json["ids"].get<Ids>()) << path << ": " << text;
    EXPECT_EQ(tokenizer.Encode(text, true), json["ids_with_special"].get<Ids>()) << path;
    EXPECT_EQ(tokenizer.Decode(ids, false), json["decoded"].get<std::string>()) << path;
    IncrementalDetokenizer stream(&tokenizer, false);
    std::string streamed;
    for (const int32_t id : ids) streamed += stream.Add(id);
    EXPECT_EQ(streamed + stream.Finish(), json["decoded"].get<std::string>()) << path;
    ++num_lines;
  }
  EXPECT_GT(num_lines, 0) << path;
}

// NAME.inp holds texts between marker lines, NAME.out the ids of each.
void CheckExpected(const Tokenizer& tokenizer, const std::string& name) {
  const std::string folder = SharedPath("data/tokenizers/expected");
  ASSERT_OK_AND_ASSIGN(const std::string texts, ReadFile(folder + "/" + name + ".inp"));
  std::ifstream outputs(folder + "/" + name + ".out");
  const std::string marker = "\n__ggml_vocab_test__\n";
  std::string line;
  int num_texts = 0;
  for (size_t begin = 0; begin < texts.size();) {
    const size_t end = texts.find(marker, begin);
    if (end == std::string::npos) break;
    ASSERT_TRUE(std::getline(outputs, line)) << name;
    std::istringstream numbers(line);
    const Ids expected{std::istream_iterator<int32_t>(numbers), std::istream_iterator<int32_t>()};
    const std::string text = texts.substr(begin, end - begin);
    EXPECT_EQ(tokenizer.Encode(text, false), expected) << name << ": " << text;
    begin = end + marker.size();
    ++num_texts;
  }
  EXPECT_GE(num_texts, 46) << name;
}

TEST(TokenizerReferenceTest, Qwen) {
  const std::string folder = SharedPath("data/tokenizers/qwen3");
  if (folder.empty()) GTEST_SKIP() << kNoShared;
  const auto tokenizer = LoadPackedTokenizer(folder);
  CheckReference(*tokenizer, SharedPath("reference/tokenizer_qwen3.jsonl"));
  CheckExpected(*tokenizer, "qwen2");
  CheckExpected(*tokenizer, "deepseek-r1-qwen");
}

TEST(TokenizerReferenceTest, Llama) {
  const std::string folder = SharedPath("data/tokenizers/llama3_1");
  if (folder.empty()) GTEST_SKIP() << kNoShared;
  const auto tokenizer = LoadPackedTokenizer(folder);
  CheckReference(*tokenizer, SharedPath("reference/tokenizer_llama3_1.jsonl"));
  CheckExpected(*tokenizer, "llama-bpe");
}

TEST(TokenizerReferenceTest, Tiny) {
  for (const char* const model : {"tiny-qwen2-1m", "tiny-qwen2-5m", "tiny-llama-5m"}) {
    const std::string folder = SharedPath(std::string("models/") + model);
    if (folder.empty()) GTEST_SKIP() << kNoShared;
    ASSERT_OK_AND_ASSIGN(const auto tokenizer, Tokenizer::Load(folder));
    CheckReference(*tokenizer, SharedPath("reference/tokenizer_tiny.jsonl"));
  }
}

// Ids made with the reference library. add_bos_token is true here: a prompt whose template begins
// with BOS gets two of them.
TEST(TokenizerReferenceTest, DeepSeekV3) {
  const std::string folder = SharedPath("data/tokenizers/deepseek_v3");
  if (folder.empty()) GTEST_SKIP() << kNoShared;
  const auto tokenizer = LoadPackedTokenizer(folder);
  EXPECT_EQ(tokenizer->Encode("Hello, world! 12345 中文かな x=$\\frac{1}{2}$\n\n  don't", false),
            (Ids{19923, 14,    2058, 3,  223, 6895, 1883, 223,   21134, 49534, 1527,
                 31,    22984, 4015, 93, 19,  3069, 20,   92776, 223,   2090,  1664}));
  EXPECT_EQ(tokenizer->Encode("<｜begin▁of▁sentence｜><｜User｜>Hi", true),
            (Ids{0, 0, 128803, 23166}));
}

}  // namespace
}  // namespace assay::engine
