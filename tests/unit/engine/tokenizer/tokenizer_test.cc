// Encoding, decoding and streaming with small tokenizers, among them every setting that the
// reference library was asked about (testdata/tokenizer_variants.json).
#include "engine/tokenizer/tokenizer.h"

#include <random>
#include <thread>

#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/tokenizer/test_model.h"

namespace assay::engine {
namespace {

using Json = nlohmann::ordered_json;
using Ids = std::vector<int32_t>;

// 43 settings: every Split behavior, inverted and not, Digits, ByteLevel in odd places, added
// tokens of every kind, unknown bytes, merges in both notations, post-processors.
TEST(TokenizerVariantsTest, EverySettingGivesTheIdsOfTheReference) {
  const Json data = ReadTestData("tokenizer_variants.json");
  int num_texts = 0;
  for (const Json& variant : data["variants"]) {
    Json root = SmallTokenizerJson();
    for (const char* const key :
         {"normalizer", "pre_tokenizer", "post_processor", "added_tokens"}) {
      root[key] = variant[key];
    }
    if (variant.contains("vocab")) root["model"]["vocab"] = variant["vocab"];
    for (const char* const key : {"ignore_merges", "unk_token", "fuse_unk"}) {
      root["model"][key] = variant[key];
    }
    if (variant["merges_as_text"]) {
      for (Json& merge : root["model"]["merges"]) {
        merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
      }
    }
    const ModelFolder folder(root.dump());
    ASSERT_OK_AND_ASSIGN(const auto tokenizer, Tokenizer::Load(folder.path()));
    for (const Json& text : variant["cases"]) {
      const auto string = text["text"].get<std::string>();
      EXPECT_EQ(tokenizer->Encode(string, false), text["ids"].get<Ids>())
          << variant["name"] << ": " << text["text"];
      EXPECT_EQ(tokenizer->Encode(string, true), text["ids_with_special"].get<Ids>())
          << variant["name"] << ": " << text["text"];
      ++num_texts;
    }
  }
  EXPECT_GT(num_texts, 600);
}

TEST(TokenizerTest, TokensAreFoundByNameAndById) {
  const auto tokenizer = SmallTokenizer();
  const std::optional<int32_t> begin = tokenizer->TokenToId("<s>");
  ASSERT_TRUE(begin.has_value());
  EXPECT_TRUE(tokenizer->IsSpecial(*begin));
  EXPECT_EQ(tokenizer->TokenBytes(*begin), "<s>");
  EXPECT_EQ(tokenizer->TokenToId("<e>"), tokenizer->vocab_size() - 1);
  const std::optional<int32_t> the = tokenizer->TokenToId("Ġthe");
  ASSERT_TRUE(the.has_value());
  EXPECT_EQ(tokenizer->TokenBytes(*the), " the");
  EXPECT_FALSE(tokenizer->IsSpecial(*the));
  EXPECT_EQ(tokenizer->TokenToId("no such token"), std::nullopt);
}

TEST(TokenizerTest, IdsBeyondTheVocabularyDecodeToNothing) {
  const auto tokenizer = SmallTokenizer();
  const Ids ids = {-1, tokenizer->vocab_size(), INT32_MAX, *tokenizer->TokenToId("a")};
  EXPECT_EQ(tokenizer->Decode(ids, false), "a");
  EXPECT_EQ(tokenizer->TokenBytes(-1), "");
  EXPECT_FALSE(tokenizer->IsSpecial(INT32_MAX));
}

TEST(TokenizerTest, InvalidUtf8CountsAsReplacementCharacters) {
  const auto tokenizer = SmallTokenizer();
  EXPECT_EQ(tokenizer->Encode("a\xFF\xE2\x82", false), tokenizer->Encode("a\uFFFD\uFFFD", false));
}

TEST(TokenizerTest, SpecialTokensAreLeftOutOfTextOnRequest) {
  const auto tokenizer = SmallTokenizer();
  const Ids ids = tokenizer->Encode("<s>the<e>", false);
  EXPECT_EQ(tokenizer->Decode(ids, false), "<s>the<e>");
  EXPECT_EQ(tokenizer->Decode(ids, true), "the");
}

TEST(TokenizerTest, ThreadsShareATokenizer) {
  const auto tokenizer = SmallTokenizer();
  const std::string text = "the other one in the other inn, naïve 日本 <s> 123";
  const Ids expected = tokenizer->Encode(text, true);
  std::vector<std::thread> threads;
  std::vector<int> num_equal(4);
  for (size_t t = 0; t < num_equal.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) num_equal[t] += tokenizer->Encode(text, true) == expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_equal, (std::vector<int>{200, 200, 200, 200}));
}

// add_bos_token is a matter of tokenizer_config.json (the study's prompts have two BOS).
TEST(TokenizerConfigTest, BosIsAddedWhenTheConfigSaysSo) {
  const std::string json = SmallTokenizerJson().dump();
  const auto num_added = [&](const std::string& config) -> absl::StatusOr<size_t> {
    const ModelFolder folder(json, config);
    ASSAY_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Load(folder.path()));
    return tokenizer->Encode("", true).size();
  };
  EXPECT_EQ(*num_added(R"({"tokenizer_class":"Qwen2Tokenizer","bos_token":"<s>"})"), 0u);
  EXPECT_EQ(*num_added(R"({"add_bos_token":false,"bos_token":"<s>"})"), 0u);
  EXPECT_EQ(*num_added(R"({"add_bos_token":true,"bos_token":{"content":"<s>"}})"), 1u);
  EXPECT_EQ(*num_added(R"({"tokenizer_class":"LlamaTokenizerFast","bos_token":"<s>"})"), 1u);
  EXPECT_EQ(*num_added(R"({"add_bos_token":true,"bos_token":"<s>","add_eos_token":true,
                           "eos_token":"<e>"})"),
            2u);
}

TEST(IncrementalDetokenizerTest, CharactersComeOutWhole) {
  const auto tokenizer = SmallTokenizer();
  IncrementalDetokenizer stream(tokenizer.get(), true);
  std::string text;
  for (const int32_t id : tokenizer->Encode("a😀b", false)) {
    const std::string piece = stream.Add(id);
    EXPECT_TRUE(piece.empty() || piece == "a" || piece == "😀" || piece == "b") << piece;
    text += piece;
  }
  EXPECT_EQ(text, "a😀b");
  EXPECT_EQ(stream.Finish(), "");
}

TEST(IncrementalDetokenizerTest, AnUnfinishedCharacterIsReplacedAtTheEnd) {
  const auto tokenizer = SmallTokenizer();
  Ids ids = tokenizer->Encode("a😀", false);
  ids.pop_back();
  IncrementalDetokenizer stream(tokenizer.get(), true);
  std::string text;
  for (const int32_t id : ids) text += stream.Add(id);
  EXPECT_EQ(text, "a");
  EXPECT_EQ(stream.Finish(), "\uFFFD");
}

TEST(IncrementalDetokenizerTest, AnyIdsGiveTheTextOfDecode) {
  const auto tokenizer = SmallTokenizer();
  std::mt19937 random(11);
  for (int round = 0; round < 5000; ++round) {
    Ids ids;
    for (size_t n = random() % 12; n-- > 0;) {
      // High bytes more often than not: pieces of characters.
      ids.push_back(static_cast<int32_t>(random() % 2 ? 0x80 + random() % 0x80
                                                      : random() % tokenizer->vocab_size()));
    }
    for (const bool skip : {false, true}) {
      IncrementalDetokenizer stream(tokenizer.get(), skip);
      std::string text;
      for (const int32_t id : ids) text += stream.Add(id);
      text += stream.Finish();
      ASSERT_EQ(text, tokenizer->Decode(ids, skip));
    }
  }
}

}  // namespace
}  // namespace assay::engine
