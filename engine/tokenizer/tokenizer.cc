#include "engine/tokenizer/tokenizer.h"

#include <absl/container/flat_hash_map.h>

#include <algorithm>

#include "base/status.h"
#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/pre_tokenizer.h"
#include "engine/tokenizer/token_index.h"
#include "engine/tokenizer/tokenizer_definition.h"
#include "engine/tokenizer/unicode.h"

namespace assay::engine {
namespace {

// The matcher of the added tokens with the given `normalized`. Special ones win ties, as in the
// reference.
AddedTokenMatcher MakeMatcher(const TokenizerDefinition& definition, bool normalized) {
  std::vector<AddedToken> tokens;
  for (const bool special : {true, false}) {
    for (AddedToken token : definition.added_tokens) {
      if (token.normalized != normalized || token.special != special) continue;
      if (normalized && definition.nfc) token.content = Nfc(token.content);
      tokens.push_back(std::move(token));
    }
  }
  return AddedTokenMatcher(std::move(tokens));
}

class ByteLevelBpeTokenizer final : public Tokenizer {
 public:
  explicit ByteLevelBpeTokenizer(TokenizerDefinition definition)
      : nfc_(definition.nfc),
        raw_added_tokens_(MakeMatcher(definition, /*normalized=*/false)),
        normalized_added_tokens_(MakeMatcher(definition, /*normalized=*/true)),
        pre_tokenizer_(std::move(definition.pre_tokenizer)),
        prefix_ids_(std::move(definition.prefix_ids)),
        suffix_ids_(std::move(definition.suffix_ids)) {
    int32_t vocab_size = 0;
    for (const auto& [token, id] : definition.vocab) vocab_size = std::max(vocab_size, id + 1);
    for (const AddedToken& token : definition.added_tokens) {
      vocab_size = std::max(vocab_size, token.id + 1);
    }
    tokens_.resize(static_cast<size_t>(vocab_size));

    Bpe::Options bpe;
    bpe.merges = std::move(definition.merges);
    bpe.ignore_merges = definition.ignore_merges;
    bpe.unknown_id = definition.unknown_id;
    bpe.fuse_unknown = definition.fuse_unknown;
    std::vector<std::pair<std::string_view, int32_t>> names;
    for (auto& [token, id] : definition.vocab) {
      const bool is_bytes = Store(std::move(token), id);
      const Token& stored = tokens_[static_cast<size_t>(id)];
      if (is_bytes) bpe.tokens.emplace_back(stored.bytes, id);
      names.emplace_back(stored.name, id);
    }
    for (AddedToken& token : definition.added_tokens) {
      Token& stored = tokens_[static_cast<size_t>(token.id)];
      stored.is_special = token.special;
      if (!stored.name.empty()) continue;  // an added token that the vocabulary has, too
      Store(std::move(token.content), token.id);
      names.emplace_back(stored.name, token.id);
    }
    id_of_name_ = TokenIndex(names);
    bpe_.emplace(bpe);
  }

  std::vector<int32_t> Encode(std::string_view text, bool add_special_tokens) const override {
    std::string repaired;
    if (ValidUtf8Prefix(text) != text.size()) {
      repaired = ReplaceInvalidUtf8(text);
      text = repaired;
    }
    std::vector<int32_t> ids;
    ids.reserve(text.size() / 3 + prefix_ids_.size() + suffix_ids_.size());
    if (add_special_tokens) ids.insert(ids.end(), prefix_ids_.begin(), prefix_ids_.end());
    Pieces pieces;
    std::vector<AddedTokenMatcher::Segment> segments;
    raw_added_tokens_.Split(text, &segments);
    for (const AddedTokenMatcher::Segment& segment : segments) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
      } else if (nfc_ && NeedsNfc(segment.text)) {
        EncodeNormalized(Nfc(segment.text), &pieces, &ids);
      } else {
        EncodeNormalized(segment.text, &pieces, &ids);
      }
    }
    if (add_special_tokens) ids.insert(ids.end(), suffix_ids_.begin(), suffix_ids_.end());
    return ids;
  }

  std::string Decode(std::span<const int32_t> ids, bool skip_special_tokens) const override {
    std::string bytes;
    for (const int32_t id : ids) {
      if (!(skip_special_tokens && IsSpecial(id))) bytes += TokenBytes(id);
    }
    return ValidUtf8Prefix(bytes) == bytes.size() ? bytes : ReplaceInvalidUtf8(bytes);
  }

  std::string_view TokenBytes(int32_t id) const override {
    return Has(id) ? std::string_view(tokens_[static_cast<size_t>(id)].bytes) : std::string_view();
  }

  bool IsSpecial(int32_t id) const override {
    return Has(id) && tokens_[static_cast<size_t>(id)].is_special;
  }

  std::optional<int32_t> TokenToId(std::string_view token) const override {
    return id_of_name_.Find(token);
  }

  int32_t vocab_size() const override { return static_cast<int32_t>(tokens_.size()); }

 private:
  struct Token {
    std::string name;   // as tokenizer.json writes it; empty: no token has this id
    std::string bytes;  // what it decodes to
    bool is_special = false;
  };

  bool Has(int32_t id) const { return id >= 0 && id < vocab_size(); }

  // A name with a character outside the byte-level alphabet decodes to itself; false then.
  bool Store(std::string name, int32_t id) {
    Token& token = tokens_[static_cast<size_t>(id)];
    std::optional<std::string> bytes = AlphabetToBytes(name);
    token.bytes = bytes.has_value() ? *bytes : name;
    token.name = std::move(name);
    return bytes.has_value();
  }

  void EncodeNormalized(std::string_view text, Pieces* pieces, std::vector<int32_t>* ids) const {
    std::vector<AddedTokenMatcher::Segment> segments;
    normalized_added_tokens_.Split(text, &segments);
    for (const AddedTokenMatcher::Segment& segment : segments) {
      if (segment.id >= 0) {
        ids->push_back(segment.id);
        continue;
      }
      pre_tokenizer_.Split(segment.text, pieces);
      for (const std::string_view piece : pieces->views) bpe_->Encode(piece, ids);
    }
  }

  const bool nfc_;
  const AddedTokenMatcher raw_added_tokens_;
  const AddedTokenMatcher normalized_added_tokens_;
  const PreTokenizer pre_tokenizer_;
  const std::vector<int32_t> prefix_ids_;
  const std::vector<int32_t> suffix_ids_;
  std::vector<Token> tokens_;  // by id; the indexes below point into it
  TokenIndex id_of_name_;
  std::optional<Bpe> bpe_;
};

// What tokenizer_config.json adds to tokenizer.json, as transformers does it.
class ConfigApplier {
 public:
  ConfigApplier(const TokenizerConfig& config, TokenizerDefinition* definition)
      : config_(config), definition_(definition) {
    for (const auto& [token, id] : definition->vocab) id_of_token_.emplace(token, id);
    for (const AddedToken& token : definition->added_tokens) {
      id_of_token_.emplace(token.content, token.id);
    }
  }

  absl::Status Apply() {
    for (const auto& [id, content] : config_.added_tokens) {
      const auto entry = id_of_token_.find(content);
      if (entry == id_of_token_.end() || entry->second != id) {
        return InvalidArgument(
            "{}: added_tokens_decoder: token '{}' with id {} is not in tokenizer.json; the two "
            "files do not belong together",
            config_.path, content, id);
      }
    }
    // The Llama class writes the post-processor itself; of others only a flag that is set counts.
    const bool is_llama_class = config_.tokenizer_class == "LlamaTokenizer" ||
                                config_.tokenizer_class == "LlamaTokenizerFast";
    if (is_llama_class) {
      definition_->prefix_ids.clear();
      definition_->suffix_ids.clear();
    }
    if (config_.add_bos_token.value_or(is_llama_class)) {
      ASSAY_ASSIGN_OR_RETURN(const int32_t bos, IdOf("bos_token", config_.bos_token));
      std::vector<int32_t>& prefix = definition_->prefix_ids;
      if (prefix.empty() || prefix.front() != bos) prefix.insert(prefix.begin(), bos);
    }
    if (config_.add_eos_token.value_or(false)) {
      ASSAY_ASSIGN_OR_RETURN(const int32_t eos, IdOf("eos_token", config_.eos_token));
      std::vector<int32_t>& suffix = definition_->suffix_ids;
      if (suffix.empty() || suffix.back() != eos) suffix.push_back(eos);
    }
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<int32_t> IdOf(std::string_view key, const std::string& token) const {
    const auto entry = id_of_token_.find(token);
    if (entry != id_of_token_.end()) return entry->second;
    return InvalidArgument("{}: add_{} is true, but {} '{}' is no token of tokenizer.json",
                           config_.path, key, key, token);
  }

  const TokenizerConfig& config_;
  TokenizerDefinition* const definition_;
  absl::flat_hash_map<std::string, int32_t> id_of_token_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& model_dir) {
  const std::string path = model_dir + "/tokenizer.json";
  ASSAY_ASSIGN_OR_RETURN(TokenizerDefinition definition, LoadTokenizerDefinition(path));
  const absl::StatusOr<TokenizerConfig> config = LoadTokenizerConfig(model_dir);
  if (config.ok()) {
    ASSAY_RETURN_IF_ERROR(ConfigApplier(*config, &definition).Apply());
  } else if (!absl::IsNotFound(config.status())) {
    return config.status();
  }
  auto tokenizer = std::make_unique<ByteLevelBpeTokenizer>(std::move(definition));
  for (const int32_t id : tokenizer->Encode("", /*add_special_tokens=*/true)) {
    if (id >= tokenizer->vocab_size()) {
      return InvalidArgument("{}: post_processor: id {} is beyond the vocabulary of {}", path, id,
                             tokenizer->vocab_size());
    }
  }
  return tokenizer;
}

}  // namespace assay::engine
