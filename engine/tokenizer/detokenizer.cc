#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/unicode.h"

namespace assay::engine {

IncrementalDetokenizer::IncrementalDetokenizer(const Tokenizer* tokenizer, bool skip_special_tokens)
    : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

std::string IncrementalDetokenizer::Add(int32_t id) {
  if (skip_special_tokens_ && tokenizer_->IsSpecial(id)) return {};
  pending_ += tokenizer_->TokenBytes(id);
  // Hold back the bytes at the end that more bytes could make a character; at most three.
  size_t held = std::min<size_t>(3, pending_.size());
  while (held > 0 && !IsIncompleteChar(std::string_view(pending_).substr(pending_.size() - held))) {
    --held;
  }
  const std::string text =
      ReplaceInvalidUtf8(std::string_view(pending_).substr(0, pending_.size() - held));
  pending_.erase(0, pending_.size() - held);
  return text;
}

std::string IncrementalDetokenizer::Finish() {
  const std::string text = ReplaceInvalidUtf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace assay::engine
