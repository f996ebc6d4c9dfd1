#include "engine/tokenizer/tokenizer_definition.h"

#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/status.h"
#include "engine/tokenizer/json_reader.h"
#include "engine/tokenizer/pre_tokenizer_definition.h"

namespace assay::engine {
namespace {

constexpr int64_t kMaxFileBytes = 128 << 20;  // the largest published one has 33 MB
constexpr size_t kMaxTokenBytes = 1 << 16;
constexpr size_t kMaxMerges = 1 << 23;
constexpr int kMaxNesting = 8;  // of sequences in sequences

using IdOfToken = absl::flat_hash_map<std::string, int32_t>;

// A setting that would change the tokens and is not served must be off.
absl::Status RequireEmpty(const JsonReader& model, const std::string& key) {
  ASSAY_ASSIGN_OR_RETURN(const JsonReader member, model.Member(key));
  const Json& value = member.value();
  const bool is_off =
      value.is_null() || value == "" || value == false || (value.is_number() && value == 0);
  return is_off ? absl::OkStatus()
                : member.Error(fmt::format("{} is not served; only null is", value.dump()));
}

absl::Status ReadVocab(const JsonReader& model, TokenizerDefinition* definition,
                       IdOfToken* id_of_token) {
  ASSAY_ASSIGN_OR_RETURN(const JsonReader vocab, model.Member("vocab"));
  if (!vocab.value().is_object()) return vocab.Error("expected an object of token: id");
  absl::flat_hash_map<int32_t, std::string> token_of_id;
  definition->vocab.reserve(vocab.value().size());
  for (const auto& [token, value] : vocab.value().items()) {
    const JsonReader entry(&value, fmt::format("{}['{}']", vocab.where(), token));
    ASSAY_ASSIGN_OR_RETURN(const int64_t number, entry.Integer(0, kMaxTokenId));
    const auto id = static_cast<int32_t>(number);
    if (token.size() > kMaxTokenBytes) return entry.Error("the token is too long");
    const auto [other, is_new] = token_of_id.try_emplace(id, token);
    if (!is_new) return entry.Error(fmt::format("id {} is also that of '{}'", id, other->second));
    definition->vocab.emplace_back(token, id);
    id_of_token->emplace(token, id);
  }
  return absl::OkStatus();
}

// Old files write a merge as "left right", newer ones as ["left", "right"].
absl::StatusOr<std::pair<std::string, std::string>> ReadMergePair(const JsonReader& merge) {
  if (merge.value().is_string()) {
    const std::string text = merge.value().get<std::string>();
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      return merge.Error(fmt::format("'{}' is not two tokens with a blank between them", text));
    }
    return std::pair(text.substr(0, space), text.substr(space + 1));
  }
  if (!merge.value().is_array() || merge.value().size() != 2) {
    return merge.Error("expected two tokens");
  }
  ASSAY_ASSIGN_OR_RETURN(const std::vector<JsonReader> sides, merge.Elements());
  ASSAY_ASSIGN_OR_RETURN(std::string left, sides[0].String());
  ASSAY_ASSIGN_OR_RETURN(std::string right, sides[1].String());
  return std::pair(std::move(left), std::move(right));
}

absl::Status ReadMerges(const JsonReader& model, const IdOfToken& id_of_token,
                        TokenizerDefinition* definition) {
  ASSAY_ASSIGN_OR_RETURN(const JsonReader reader, model.Member("merges"));
  ASSAY_ASSIGN_OR_RETURN(const std::vector<JsonReader> merges, reader.Elements());
  if (merges.size() > kMaxMerges) {
    return reader.Error(fmt::format("{} merges; the limit is {}", merges.size(), kMaxMerges));
  }
  absl::flat_hash_set<std::pair<int32_t, int32_t>> seen;
  seen.reserve(merges.size());
  for (const JsonReader& merge : merges) {
    if (merge.value().is_string() &&
        merge.value().get_ref<const std::string&>().rfind("#version", 0) == 0) {
      continue;  // the header of merges.txt, which conversions leave in
    }
    ASSAY_ASSIGN_OR_RETURN(const auto pair, ReadMergePair(merge));
    const auto left = id_of_token.find(pair.first);
    const auto right = id_of_token.find(pair.second);
    const auto result = id_of_token.find(pair.first + pair.second);
    for (const auto& [token, entry] : {std::pair(pair.first, left), std::pair(pair.second, right),
                                       std::pair(pair.first + pair.second, result)}) {
      if (entry == id_of_token.end()) {
        return merge.Error(fmt::format("token '{}' is not in the vocabulary", token));
      }
    }
    if (!seen.emplace(left->second, right->second).second) {
      return merge.Error(fmt::format("'{}' and '{}' were merged before", pair.first, pair.second));
    }
    definition->merges.push_back({left->second, right->second, result->second});
  }
  return absl::OkStatus();
}

absl::Status ReadModel(const JsonReader& root, TokenizerDefinition* definition,
                       IdOfToken* id_of_token) {
  ASSAY_ASSIGN_OR_RETURN(const JsonReader model, root.Member("model"));
  ASSAY_ASSIGN_OR_RETURN(const JsonReader type, model.Member("type"));
  // Files older than the key have no type; what looks like BPE is BPE.
  if (!type.is_null() && type.value() != "BPE") {
    return type.Error(fmt::format("model {} is not served; only BPE is", type.value().dump()));
  }
  for (const char* const key :
       {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"}) {
    ASSAY_RETURN_IF_ERROR(RequireEmpty(model, key));
  }
  ASSAY_ASSIGN_OR_RETURN(definition->ignore_merges, model.BoolMember("ignore_merges", false));
  ASSAY_ASSIGN_OR_RETURN(definition->fuse_unknown, model.BoolMember("fuse_unk", false));
  ASSAY_RETURN_IF_ERROR(ReadVocab(model, definition, id_of_token));
  ASSAY_RETURN_IF_ERROR(ReadMerges(model, *id_of_token, definition));
  ASSAY_ASSIGN_OR_RETURN(const JsonReader unknown, model.Member("unk_token"));
  if (!unknown.is_null()) {
    ASSAY_ASSIGN_OR_RETURN(const std::string token, unknown.String());
    const auto entry = id_of_token->find(token);
    if (entry == id_of_token->end()) {
      return unknown.Error(fmt::format("'{}' is not in the vocabulary", token));
    }
    definition->unknown_id = entry->second;
  }
  return absl::OkStatus();
}

absl::StatusOr<AddedToken> ReadAddedToken(const JsonReader& reader) {
  AddedToken token;
  ASSAY_ASSIGN_OR_RETURN(const JsonReader id, reader.Member("id"));
  ASSAY_ASSIGN_OR_RETURN(const int64_t number, id.Integer(0, kMaxTokenId));
  token.id = static_cast<int32_t>(number);
  ASSAY_ASSIGN_OR_RETURN(token.content, reader.StringMember("content"));
  if (token.content.empty() || token.content.size() > AddedTokenMatcher::kMaxTokenBytes) {
    return reader.Error(fmt::format("content has {} bytes; 1..{} are possible",
                                    token.content.size(), AddedTokenMatcher::kMaxTokenBytes));
  }
  ASSAY_ASSIGN_OR_RETURN(token.special, reader.BoolMember("special", false));
  ASSAY_ASSIGN_OR_RETURN(token.single_word, reader.BoolMember("single_word", false));
  ASSAY_ASSIGN_OR_RETURN(token.lstrip, reader.BoolMember("lstrip", false));
  ASSAY_ASSIGN_OR_RETURN(token.rstrip, reader.BoolMember("rstrip", false));
  ASSAY_ASSIGN_OR_RETURN(token.normalized, reader.BoolMember("normalized", !token.special));
  return token;
}

// The reference gives an added token the id of the vocabulary's equal token, or the next free one,
// whatever the file says. A file that says something else has no one meaning and is refused.
absl::Status ReadAddedTokens(const JsonReader& root, TokenizerDefinition* definition,
                             IdOfToken* id_of_token) {
  ASSAY_ASSIGN_OR_RETURN(const JsonReader list, root.Member("added_tokens"));
  if (list.is_null()) return absl::OkStatus();
  ASSAY_ASSIGN_OR_RETURN(const std::vector<JsonReader> entries, list.Elements());
  auto next_id = static_cast<int32_t>(definition->vocab.size());
  absl::flat_hash_set<std::string> seen;
  for (const JsonReader& entry : entries) {
    ASSAY_ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(entry));
    if (!seen.insert(token.content).second) {
      return entry.Error(fmt::format("'{}' was added before", token.content));
    }
    const auto known = id_of_token->find(token.content);
    const int32_t id = known != id_of_token->end() ? known->second : next_id;
    if (token.id != id) {
      return entry.Error(
          fmt::format("'{}' has id {}, but its place is {}", token.content, token.id, id));
    }
    if (known == id_of_token->end()) id_of_token->emplace(token.content, id);
    next_id = std::max(next_id, id + 1);
    definition->added_tokens.push_back(std::move(token));
  }
  return absl::OkStatus();
}

absl::Status ReadNormalizer(const JsonReader& reader, int nesting, bool* nfc) {
  if (reader.is_null()) return absl::OkStatus();
  if (nesting > kMaxNesting) return reader.Error("sequences are nested too deeply");
  ASSAY_ASSIGN_OR_RETURN(const std::string type, reader.StringMember("type"));
  if (type == "NFC") {
    *nfc = true;
    return absl::OkStatus();
  }
  if (type != "Sequence") {
    return reader.Error(fmt::format("normalizer '{}' is not served; NFC and Sequence are", type));
  }
  ASSAY_ASSIGN_OR_RETURN(const JsonReader parts, reader.Member("normalizers"));
  ASSAY_ASSIGN_OR_RETURN(const std::vector<JsonReader> elements, parts.Elements());
  for (const JsonReader& element : elements) {
    ASSAY_RETURN_IF_ERROR(ReadNormalizer(element, nesting + 1, nfc));
  }
  return absl::OkStatus();
}

// The ids of one special token of a template.
absl::Status AppendTemplateIds(const JsonReader& processor, const JsonReader& item,
                               std::vector<int32_t>* ids) {
  ASSAY_ASSIGN_OR_RETURN(const std::string name, item.StringMember("id"));
  ASSAY_ASSIGN_OR_RETURN(const JsonReader tokens, processor.Member("special_tokens"));
  ASSAY_ASSIGN_OR_RETURN(const JsonReader token, tokens.Member(name));
  if (token.is_null()) return item.Error(fmt::format("'{}' is not in special_tokens", name));
  ASSAY_ASSIGN_OR_RETURN(const JsonReader list, token.Member("ids"));
  ASSAY_ASSIGN_OR_RETURN(const std::vector<JsonReader> elements, list.Elements());
  for (const JsonReader& element : elements) {
    ASSAY_ASSIGN_OR_RETURN(const int64_t id, element.Integer(0, kMaxTokenId));
    ids->push_back(static_cast<int32_t>(id));
  }
  return absl::OkStatus();
}

absl::Status ReadTemplate(const JsonReader& processor, TokenizerDefinition* definition) {
  ASSAY_ASSIGN_OR_RETURN(const JsonReader single, processor.Member("single"));
  ASSAY_ASSIGN_OR_RETURN(const std::vector<JsonReader> items, single.Elements());
  std::vector<int32_t> before;
  std::vector<int32_t> after;
  int num_sequences = 0;
  for (const JsonReader& item : items) {
    ASSAY_ASSIGN_OR_RETURN(const JsonReader special, item.Member("SpecialToken"));
    if (!special.is_null()) {
      ASSAY_RETURN_IF_ERROR(
          AppendTemplateIds(processor, special, num_sequences == 0 ? &before : &after));
      continue;
    }
    ASSAY_ASSIGN_OR_RETURN(const JsonReader sequence, item.Member("Sequence"));
    ASSAY_ASSIGN_OR_RETURN(const std::string name, sequence.StringMember("id"));
    if (name != "A") return sequence.Error("expected the id A");
    ++num_sequences;
  }
  if (num_sequences != 1) return single.Error("the text (Sequence A) must stand in it once");
  if (!definition->prefix_ids.empty() || !definition->suffix_ids.empty()) {
    return processor.Error("a second template; the reference gives two no clear meaning");
  }
  definition->prefix_ids = std::move(before);
  definition->suffix_ids = std::move(after);
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const JsonReader& reader, int nesting,
                               TokenizerDefinition* definition) {
  if (reader.is_null()) return absl::OkStatus();
  if (nesting > kMaxNesting) return reader.Error("sequences are nested too deeply");
  ASSAY_ASSIGN_OR_RETURN(const std::string type, reader.StringMember("type"));
  if (type == "ByteLevel") return absl::OkStatus();  // moves offsets, not ids
  if (type == "TemplateProcessing") return ReadTemplate(reader, definition);
  if (type != "Sequence") {
    return reader.Error(fmt::format(
        "post-processor '{}' is not served; ByteLevel, TemplateProcessing and Sequence are", type));
  }
  ASSAY_ASSIGN_OR_RETURN(const JsonReader parts, reader.Member("processors"));
  ASSAY_ASSIGN_OR_RETURN(const std::vector<JsonReader> elements, parts.Elements());
  for (const JsonReader& element : elements) {
    ASSAY_RETURN_IF_ERROR(ReadPostProcessor(element, nesting + 1, definition));
  }
  return absl::OkStatus();
}

absl::Status CheckDecoder(const JsonReader& root) {
  ASSAY_ASSIGN_OR_RETURN(const JsonReader decoder, root.Member("decoder"));
  if (decoder.is_null()) return decoder.Error("there must be one, of type ByteLevel");
  ASSAY_ASSIGN_OR_RETURN(const std::string type, decoder.StringMember("type"));
  if (type == "ByteLevel") return absl::OkStatus();
  return decoder.Error(fmt::format("decoder '{}' is not served; only ByteLevel is", type));
}

}  // namespace

absl::StatusOr<TokenizerDefinition> LoadTokenizerDefinition(const std::string& path) {
  ASSAY_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxFileBytes));
  ASSAY_ASSIGN_OR_RETURN(const Json json, ParseJson(text, path));
  const JsonReader root(&json, path);

  TokenizerDefinition definition;
  IdOfToken id_of_token;
  ASSAY_RETURN_IF_ERROR(ReadModel(root, &definition, &id_of_token));
  ASSAY_RETURN_IF_ERROR(ReadAddedTokens(root, &definition, &id_of_token));
  ASSAY_ASSIGN_OR_RETURN(const JsonReader normalizer, root.Member("normalizer"));
  ASSAY_RETURN_IF_ERROR(ReadNormalizer(normalizer, 0, &definition.nfc));
  ASSAY_ASSIGN_OR_RETURN(const JsonReader pre_tokenizer, root.Member("pre_tokenizer"));
  ASSAY_ASSIGN_OR_RETURN(definition.pre_tokenizer, ReadPreTokenizer(pre_tokenizer));
  ASSAY_ASSIGN_OR_RETURN(const JsonReader post_processor, root.Member("post_processor"));
  ASSAY_RETURN_IF_ERROR(ReadPostProcessor(post_processor, 0, &definition));
  // "truncation" and "padding" belong to batches; as in transformers, encoding does neither.
  ASSAY_RETURN_IF_ERROR(CheckDecoder(root));
  return definition;
}

}  // namespace assay::engine
