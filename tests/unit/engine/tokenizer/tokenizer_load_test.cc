// Files that are wrong: each gives an error that names the file, the key and what is the matter.
#include <functional>

#include "engine/tokenizer/tokenizer.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/tokenizer/test_model.h"

namespace assay::engine {
namespace {

using Json = nlohmann::ordered_json;
using testing::IsError;

struct BadFile {
  const char* name;
  std::function<void(Json&)> spoil;
  const char* message;
};

class BadTokenizerTest : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadTokenizerTest, IsRefused) {
  Json root = SmallTokenizerJson();
  GetParam().spoil(root);
  const ModelFolder folder(root.dump());
  const auto tokenizer = Tokenizer::Load(folder.path());
  EXPECT_THAT(tokenizer, IsError(absl::StatusCode::kInvalidArgument, "tokenizer.json: "));
  EXPECT_THAT(tokenizer, IsError(absl::StatusCode::kInvalidArgument, GetParam().message));
}

Json Split(const Json& pattern, const std::string& behavior) {
  return {{"type", "Sequence"},
          {"pretokenizers",
           {{{"type", "Split"}, {"pattern", pattern}, {"behavior", behavior}, {"invert", false}},
            {{"type", "ByteLevel"}}}}};
}

Json Nested(int levels, const char* list) {
  Json inner = {{"type", "ByteLevel"}};
  for (int i = 0; i < levels; ++i) {
    Json outer = {{"type", "Sequence"}};
    outer[list] = Json::array({inner});
    inner = outer;
  }
  return inner;
}

INSTANTIATE_TEST_SUITE_P(
    Spoilt, BadTokenizerTest,
    ::testing::Values(
        BadFile{"NotAnObject", [](Json& j) { j = Json::array(); }, "expected an object"},
        BadFile{"NoModel", [](Json& j) { j.erase("model"); }, "model: expected an object"},
        BadFile{"OtherModel", [](Json& j) { j["model"]["type"] = "Unigram"; }, "only BPE"},
        BadFile{"NoVocab", [](Json& j) { j["model"].erase("vocab"); }, "model.vocab"},
        BadFile{"VocabIsAList", [](Json& j) { j["model"]["vocab"] = Json::array(); }, "model.vocab"},
        BadFile{"IdIsAString", [](Json& j) { j["model"]["vocab"]["a"] = "1"; },
                "model.vocab['a']: expected an integer"},
        BadFile{"IdIsNegative", [](Json& j) { j["model"]["vocab"]["a"] = -1; }, "-1 is not in 0.."},
        BadFile{"IdIsHuge", [](Json& j) { j["model"]["vocab"]["a"] = UINT64_MAX; }, "is not in 0.."},
        BadFile{"IdTwice", [](Json& j) { j["model"]["vocab"]["new"] = 5; }, "id 5 is also that of"},
        BadFile{"NoMerges", [](Json& j) { j["model"].erase("merges"); }, "model.merges"},
        BadFile{"MergeOfOne", [](Json& j) { j["model"]["merges"][3] = {"a"}; },
                "model.merges[3]: expected two tokens"},
        BadFile{"MergeOfThreeWords", [](Json& j) { j["model"]["merges"][0] = "a b c"; },
                "not two tokens"},
        BadFile{"MergeOfUnknown", [](Json& j) { j["model"]["merges"][0] = {"a", "no such"}; },
                "'no such' is not in the vocabulary"},
        BadFile{"MergeIntoUnknown", [](Json& j) { j["model"]["merges"][0] = {"a", "z"}; },
                "'az' is not in the vocabulary"},
        BadFile{"MergeTwice",
                [](Json& j) { j["model"]["merges"].push_back(j["model"]["merges"][0]); },
                "were merged before"},
        BadFile{"UnknownTokenUnknown", [](Json& j) { j["model"]["unk_token"] = "<unk>"; },
                "model.unk_token"},
        BadFile{"ByteFallback", [](Json& j) { j["model"]["byte_fallback"] = true; },
                "model.byte_fallback: true is not served"},
        BadFile{"Dropout", [](Json& j) { j["model"]["dropout"] = 0.1; }, "model.dropout"},
        BadFile{"IgnoreMergesIsANumber", [](Json& j) { j["model"]["ignore_merges"] = 1; },
                "model.ignore_merges: expected true or false"},
        BadFile{"AddedTokensIsAnObject", [](Json& j) { j["added_tokens"] = Json::object(); },
                "added_tokens: expected an array"},
        BadFile{"AddedTokenWithoutId", [](Json& j) { j["added_tokens"][0].erase("id"); },
                "added_tokens[0].id"},
        BadFile{"AddedTokenEmpty", [](Json& j) { j["added_tokens"][0]["content"] = ""; },
                "content has 0 bytes"},
        BadFile{"AddedTokenTooLong",
                [](Json& j) { j["added_tokens"][0]["content"] = std::string(2000, 'x'); },
                "content has 2000 bytes"},
        BadFile{"AddedTokenTwice", [](Json& j) { j["added_tokens"][1]["content"] = "<s>"; },
                "'<s>' was added before"},
        BadFile{"AddedTokenElsewhere", [](Json& j) { j["added_tokens"][0]["id"] = 9999; },
                "has id 9999, but its place is"},
        BadFile{"OtherNormalizer", [](Json& j) { j["normalizer"] = {{"type", "NFKC"}}; },
                "normalizer 'NFKC' is not served"},
        BadFile{"NoPreTokenizer", [](Json& j) { j["pre_tokenizer"] = nullptr; }, "no ByteLevel step"},
        BadFile{"OtherPreTokenizer",
                [](Json& j) { j["pre_tokenizer"] = {{"type", "Metaspace"}}; },
                "pre-tokenizer 'Metaspace' is not served"},
        BadFile{"NestedSequences",
                [](Json& j) { j["pre_tokenizer"] = Nested(10, "pretokenizers"); },
                "nested too deeply"},
        BadFile{"BadRegex", [](Json& j) { j["pre_tokenizer"] = Split({{"Regex", "(a"}}, "Isolated"); },
                "pre_tokenizer.pretokenizers[0].pattern.Regex"},
        BadFile{"BadBehavior",
                [](Json& j) { j["pre_tokenizer"] = Split({{"Regex", "a"}}, "Sideways"); },
                "unknown behavior 'Sideways'"},
        BadFile{"NoPattern", [](Json& j) { j["pre_tokenizer"] = Split(Json::object(), "Isolated"); },
                "pattern.Regex: expected a string"},
        BadFile{"OtherPostProcessor",
                [](Json& j) { j["post_processor"] = {{"type", "BertProcessing"}}; },
                "post-processor 'BertProcessing' is not served"},
        BadFile{"TemplateIdBeyondVocabulary",
                [](Json& j) {
                  j["post_processor"] = {
                      {"type", "TemplateProcessing"},
                      {"single",
                       {{{"SpecialToken", {{"id", "x"}}}}, {{"Sequence", {{"id", "A"}}}}}},
                      {"special_tokens", {{"x", {{"ids", {100000}}}}}}};
                },
                "id 100000 is beyond the vocabulary"},
        BadFile{"TemplateWithoutText",
                [](Json& j) {
                  j["post_processor"] = {{"type", "TemplateProcessing"}, {"single", Json::array()}};
                },
                "must stand in it once"},
        BadFile{"NoDecoder", [](Json& j) { j["decoder"] = nullptr; }, "decoder: there must be one"},
        BadFile{"OtherDecoder", [](Json& j) { j["decoder"] = {{"type", "WordPiece"}}; },
                "decoder 'WordPiece' is not served"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(TokenizerFileTest, MissingAndMalformedFilesAreNamed) {
  EXPECT_THAT(Tokenizer::Load("/no/such/folder"),
              IsError(absl::StatusCode::kNotFound, "/no/such/folder/tokenizer.json"));
  for (const char* const text : {"", "{", "[1,]", "\xFF", "{\"a\":1} x"}) {
    const ModelFolder folder(text);
    EXPECT_THAT(Tokenizer::Load(folder.path()),
                IsError(absl::StatusCode::kInvalidArgument, "tokenizer.json"))
        << text;
  }
  const ModelFolder deep(std::string(100'000, '['));
  EXPECT_THAT(Tokenizer::Load(deep.path()),
              IsError(absl::StatusCode::kInvalidArgument, "tokenizer.json"));
}

TEST(TokenizerFileTest, AKeyThatStandsTwiceIsRefused) {
  std::string text = SmallTokenizerJson().dump();
  text.replace(text.find("\"vocab\":{"), 9, "\"vocab\":{\"a\":7,");
  const ModelFolder folder(text);
  EXPECT_THAT(Tokenizer::Load(folder.path()), IsError(absl::StatusCode::kInvalidArgument, "twice"));
}

// A prefix of a valid file is what a broken download leaves.
TEST(TokenizerFileTest, NoTruncationCrashes) {
  const std::string text = SmallTokenizerJson().dump();
  for (size_t size = 0; size < text.size(); size += 97) {
    const ModelFolder folder(text.substr(0, size));
    EXPECT_FALSE(Tokenizer::Load(folder.path()).ok());
  }
}

TEST(TokenizerConfigFileTest, WrongConfigsAreRefused) {
  const std::string json = SmallTokenizerJson().dump();
  const std::pair<const char*, const char*> cases[] = {
      {"[]", "expected an object"},
      {"{", "tokenizer_config.json"},
      {R"({"add_bos_token":1})", "add_bos_token: expected true or false"},
      {R"({"bos_token":5})", "bos_token: expected a string"},
      {R"({"bos_token":{"text":"x"}})", "bos_token.content"},
      {R"({"add_bos_token":true})", "add_bos_token is true, but bos_token ''"},
      {R"({"add_bos_token":true,"bos_token":"<nope>"})", "'<nope>' is no token"},
      {R"({"tokenizer_class":[]})", "tokenizer_class: expected a string"},
      {R"({"added_tokens_decoder":{"x":{"content":"<s>"}}})", "the key is not an id"},
      {R"({"added_tokens_decoder":{"3":{"content":"<s>"}}})", "do not belong together"},
      {R"({"chat_template":5})", "chat_template: expected a string"},
      {R"({"chat_template":[{"name":"rag","template":"x"}]})", "there are: rag"},
  };
  for (const auto& [config, message] : cases) {
    const ModelFolder folder(json, config);
    EXPECT_THAT(Tokenizer::Load(folder.path()),
                IsError(absl::StatusCode::kInvalidArgument, message))
        << config;
  }
}

}  // namespace
}  // namespace assay::engine
