// tokenizer_config.json: what the tokenizer and the chat template need of it.
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/status.h"
#include "engine/tokenizer/json_reader.h"
#include "engine/tokenizer/tokenizer_definition.h"

namespace assay::engine {
namespace {

constexpr int64_t kMaxFileBytes = 16 << 20;

// A token is written as its text, or as an object with the text in "content"; null is none.
absl::StatusOr<std::string> TokenMember(const JsonReader& root, const std::string& key) {
  ASSAY_ASSIGN_OR_RETURN(const JsonReader token, root.Member(key));
  if (token.is_null()) return std::string();
  if (token.value().is_object()) return token.StringMember("content");
  return token.String();
}

absl::StatusOr<std::optional<bool>> OptionalBool(const JsonReader& root, const std::string& key) {
  ASSAY_ASSIGN_OR_RETURN(const JsonReader member, root.Member(key));
  if (member.is_null()) return std::optional<bool>();
  ASSAY_ASSIGN_OR_RETURN(const bool value, root.BoolMember(key, false));
  return std::optional<bool>(value);
}

// One template, or a list of {"name", "template"}.
absl::StatusOr<std::optional<std::string>> ReadChatTemplate(const JsonReader& root) {
  ASSAY_ASSIGN_OR_RETURN(const JsonReader reader, root.Member("chat_template"));
  if (reader.is_null()) return std::optional<std::string>();
  if (!reader.value().is_array()) {
    ASSAY_ASSIGN_OR_RETURN(std::string source, reader.String());
    return std::optional<std::string>(std::move(source));
  }
  ASSAY_ASSIGN_OR_RETURN(const std::vector<JsonReader> named, reader.Elements());
  std::string names;
  for (const JsonReader& entry : named) {
    ASSAY_ASSIGN_OR_RETURN(const std::string name, entry.StringMember("name"));
    ASSAY_ASSIGN_OR_RETURN(std::string source, entry.StringMember("template"));
    if (name == "default") return std::optional<std::string>(std::move(source));
    names += (names.empty() ? "" : ", ") + name;
  }
  return reader.Error(fmt::format("no template is named 'default'; there are: {}", names));
}

absl::Status ReadAddedTokensDecoder(const JsonReader& root, TokenizerConfig* config) {
  ASSAY_ASSIGN_OR_RETURN(const JsonReader decoder, root.Member("added_tokens_decoder"));
  if (decoder.is_null()) return absl::OkStatus();
  if (!decoder.value().is_object()) return decoder.Error("expected an object of id: token");
  for (const auto& [key, value] : decoder.value().items()) {
    const JsonReader entry(&value, decoder.where() + "." + key);
    int32_t id = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size()) {
      return entry.Error("the key is not an id");
    }
    ASSAY_ASSIGN_OR_RETURN(std::string content, entry.StringMember("content"));
    config->added_tokens.emplace_back(id, std::move(content));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerConfig> LoadTokenizerConfig(const std::string& model_dir) {
  TokenizerConfig config;
  config.path = model_dir + "/tokenizer_config.json";
  ASSAY_ASSIGN_OR_RETURN(const std::string text, ReadFile(config.path, kMaxFileBytes));
  ASSAY_ASSIGN_OR_RETURN(const Json json, ParseJson(text, config.path));
  const JsonReader root(&json, config.path);
  ASSAY_ASSIGN_OR_RETURN(const JsonReader tokenizer_class, root.Member("tokenizer_class"));
  if (!tokenizer_class.is_null()) {
    ASSAY_ASSIGN_OR_RETURN(config.tokenizer_class, tokenizer_class.String());
  }
  ASSAY_ASSIGN_OR_RETURN(config.bos_token, TokenMember(root, "bos_token"));
  ASSAY_ASSIGN_OR_RETURN(config.eos_token, TokenMember(root, "eos_token"));
  ASSAY_ASSIGN_OR_RETURN(config.add_bos_token, OptionalBool(root, "add_bos_token"));
  ASSAY_ASSIGN_OR_RETURN(config.add_eos_token, OptionalBool(root, "add_eos_token"));
  ASSAY_ASSIGN_OR_RETURN(config.chat_template, ReadChatTemplate(root));
  ASSAY_RETURN_IF_ERROR(ReadAddedTokensDecoder(root, &config));
  return config;
}

}  // namespace assay::engine
