// The text side of a model: prompts to ids, ids to answers.
//
// A prompt is the chat template's text with the generation prompt, tokenized again with special
// tokens enabled, as the study did it: where a tokenizer adds a BOS and the
// template writes one, there are two.
//
// An answer is the text of the ids without special tokens, except the marks of thinking: graders
// and readers need `</think>`, which some tokenizers flag as special and some do not. For the
// models of the study, where it is an ordinary added token, this is the reference's text exactly.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/tokenizer.h"

namespace assay::worker {

inline constexpr char kEndOfThinking[] = "</think>";

// Immutable once loaded; thread-safe.
class ModelText {
 public:
  // A model without a chat template loads; only ChatPrompt fails then.
  static absl::StatusOr<std::unique_ptr<ModelText>> Load(const std::string& model_dir);

  // One user turn, after a system turn when that is not empty.
  absl::StatusOr<std::vector<int32_t>> ChatPrompt(const std::string& user_text,
                                                  const std::string& system_text = {}) const;

  // A calibration document: the question as the user's turn, then the text; the text alone when the
  // question is empty.
  absl::StatusOr<std::vector<int32_t>> Document(const std::string& question,
                                                const std::string& text) const;

  // The text as it stands.
  std::vector<int32_t> Encode(const std::string& text, bool add_special_tokens) const;

  // Valid UTF-8.
  std::string DecodeAnswer(std::span<const int32_t> ids) const;
  // Whether the id's text is part of answers.
  bool IsShown(int32_t id) const;

  // Ids up to and including the end of thinking; -1 when thinking does not end in them.
  int64_t CountThinkingTokens(std::span<const int32_t> ids, const std::string& end) const;

  const engine::Tokenizer& tokenizer() const { return *tokenizer_; }

 private:
  ModelText() = default;
  absl::StatusOr<std::string> Render(const std::string& user_text,
                                     const std::string& system_text) const;

  std::unique_ptr<engine::Tokenizer> tokenizer_;
  std::unique_ptr<engine::ChatTemplate> chat_template_;
  absl::Status chat_template_status_;  // why there is none
  std::set<int32_t> thinking_marks_;
};

}  // namespace assay::worker
