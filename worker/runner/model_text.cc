#include "worker/runner/model_text.h"

#include <optional>

#include "base/status.h"
#include "worker/wire/utf8.h"

namespace assay::worker {
namespace {

constexpr char kStartOfThinking[] = "<think>";

}  // namespace

absl::StatusOr<std::unique_ptr<ModelText>> ModelText::Load(const std::string& model_dir) {
  std::unique_ptr<ModelText> text(new ModelText());
  ASSAY_ASSIGN_OR_RETURN(text->tokenizer_, engine::Tokenizer::Load(model_dir));
  absl::StatusOr<std::unique_ptr<engine::ChatTemplate>> chat_template =
      engine::ChatTemplate::Load(model_dir);
  if (chat_template.ok()) {
    text->chat_template_ = *std::move(chat_template);
  } else {
    text->chat_template_status_ = chat_template.status();
  }
  for (const char* mark : {kStartOfThinking, kEndOfThinking}) {
    if (const std::optional<int32_t> id = text->tokenizer_->TokenToId(mark)) {
      text->thinking_marks_.insert(*id);
    }
  }
  return text;
}

absl::StatusOr<std::string> ModelText::Render(const std::string& user_text,
                                              const std::string& system_text) const {
  if (chat_template_ == nullptr) return chat_template_status_;
  std::vector<engine::ChatMessage> messages;
  if (!system_text.empty()) messages.push_back({"system", system_text});
  messages.push_back({"user", user_text});
  return chat_template_->Render(messages, /*add_generation_prompt=*/true);
}

absl::StatusOr<std::vector<int32_t>> ModelText::ChatPrompt(const std::string& user_text,
                                                           const std::string& system_text) const {
  ASSAY_ASSIGN_OR_RETURN(const std::string prompt, Render(user_text, system_text));
  return Encode(prompt, /*add_special_tokens=*/true);
}

absl::StatusOr<std::vector<int32_t>> ModelText::Document(const std::string& question,
                                                         const std::string& text) const {
  if (question.empty()) return Encode(text, /*add_special_tokens=*/true);
  ASSAY_ASSIGN_OR_RETURN(const std::string prompt, Render(question, ""));
  // Published traces open their thinking themselves; the generation prompt has done so already.
  std::string_view rest = text;
  if (prompt.ends_with("<think>\n") && rest.starts_with(kStartOfThinking)) {
    rest.remove_prefix(sizeof(kStartOfThinking) - 1);
    if (rest.starts_with("\n")) rest.remove_prefix(1);
  }
  return Encode(prompt + std::string(rest), /*add_special_tokens=*/true);
}

std::vector<int32_t> ModelText::Encode(const std::string& text, bool add_special_tokens) const {
  return tokenizer_->Encode(text, add_special_tokens);
}

bool ModelText::IsShown(int32_t id) const {
  return !tokenizer_->IsSpecial(id) || thinking_marks_.contains(id);
}

std::string ModelText::DecodeAnswer(std::span<const int32_t> ids) const {
  std::vector<int32_t> shown;
  shown.reserve(ids.size());
  for (int32_t id : ids) {
    if (IsShown(id)) shown.push_back(id);
  }
  return ValidUtf8(tokenizer_->Decode(shown, /*skip_special_tokens=*/false));
}

int64_t ModelText::CountThinkingTokens(std::span<const int32_t> ids, const std::string& end) const {
  const std::string& mark = end.empty() ? std::string(kEndOfThinking) : end;
  if (const std::optional<int32_t> mark_id = tokenizer_->TokenToId(mark)) {
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] == *mark_id) return static_cast<int64_t>(i) + 1;
    }
    return -1;
  }
  // The mark is spelt with several tokens, and its last one may hold more than its end.
  std::string tail;
  for (size_t i = 0; i < ids.size(); ++i) {
    tail += tokenizer_->TokenBytes(ids[i]);
    if (tail.find(mark) != std::string::npos) return static_cast<int64_t>(i) + 1;
    if (tail.size() > mark.size()) tail.erase(0, tail.size() - mark.size());
  }
  return -1;
}

}  // namespace assay::worker
