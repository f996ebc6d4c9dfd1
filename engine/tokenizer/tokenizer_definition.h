// What tokenizer.json and tokenizer_config.json say, checked and in our own types.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/pre_tokenizer.h"

namespace assay::engine {

// Ids beyond this are refused: the tables here are indexed by id.
inline constexpr int32_t kMaxTokenId = (1 << 22) - 1;

struct TokenizerDefinition {
  // model
  std::vector<std::pair<std::string, int32_t>> vocab;  // as written; ids differ
  std::vector<Bpe::Merge> merges;
  bool ignore_merges = false;
  std::optional<int32_t> unknown_id;
  bool fuse_unknown = false;

  std::vector<AddedToken> added_tokens;  // contents and ids differ
  bool nfc = false;                      // the normalizer
  std::vector<PreTokenizerStep> pre_tokenizer;

  // The post-processor: what stands before and behind a text with special tokens.
  std::vector<int32_t> prefix_ids;
  std::vector<int32_t> suffix_ids;
};

// INVALID_ARGUMENT names the file, the key, and what is wrong or not served.
absl::StatusOr<TokenizerDefinition> LoadTokenizerDefinition(const std::string& path);

// The part of tokenizer_config.json that is used.
struct TokenizerConfig {
  std::string path;             // for messages
  std::string tokenizer_class;  // may be empty
  std::string bos_token;        // empty: none
  std::string eos_token;
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  std::optional<std::string> chat_template;                   // of several named ones, "default"
  std::vector<std::pair<int32_t, std::string>> added_tokens;  // added_tokens_decoder
};

// NOT_FOUND when the folder has no tokenizer_config.json; INVALID_ARGUMENT as above.
absl::StatusOr<TokenizerConfig> LoadTokenizerConfig(const std::string& model_dir);

}  // namespace assay::engine
