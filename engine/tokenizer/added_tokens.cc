#include "engine/tokenizer/added_tokens.h"

#include <algorithm>

#include "base/status.h"
#include "engine/tokenizer/unicode.h"

namespace assay::engine {
namespace {

uint64_t EdgeKey(uint32_t node, char byte) {
  return (uint64_t{node} << 8) | static_cast<uint8_t>(byte);
}

// The start of the last character of `text`, which is not empty.
size_t LastChar(std::string_view text) {
  size_t i = text.size() - 1;
  while (i > 0 && (static_cast<uint8_t>(text[i]) & 0xC0) == 0x80) --i;
  return i;
}

bool IsSpaceAt(std::string_view text, size_t i) {
  return CharClasses::Get()[DecodeChar(text.data() + i).code_point] & kSpace;
}

bool TouchesWord(std::string_view text, size_t begin, size_t end) {
  const auto is_word = [&](size_t i) { return IsWordChar(DecodeChar(text.data() + i).code_point); };
  return (begin > 0 && is_word(LastChar(text.substr(0, begin)))) ||
         (end < text.size() && is_word(end));
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  nodes_.emplace_back();
  for (size_t t = 0; t < tokens_.size(); ++t) {
    const std::string& content = tokens_[t].content;
    ASSAY_CHECK(!content.empty() && content.size() <= kMaxTokenBytes);
    starts_token_[static_cast<uint8_t>(content[0])] = true;
    uint32_t node = 0;
    for (const char byte : content) {
      const auto [edge, is_new] =
          children_.try_emplace(EdgeKey(node, byte), static_cast<uint32_t>(nodes_.size()));
      if (is_new) nodes_.emplace_back();
      node = edge->second;
    }
    if (nodes_[node].token < 0) nodes_[node].token = static_cast<int32_t>(t);
  }
}

int32_t AddedTokenMatcher::LongestAt(std::string_view text, size_t begin, size_t* end) const {
  int32_t longest = -1;
  uint32_t node = 0;
  for (size_t i = begin; i < text.size(); ++i) {
    const auto edge = children_.find(EdgeKey(node, text[i]));
    if (edge == children_.end()) break;
    node = edge->second;
    if (nodes_[node].token >= 0) {
      longest = nodes_[node].token;
      *end = i + 1;
    }
  }
  return longest;
}

void AddedTokenMatcher::Split(std::string_view text, std::vector<Segment>* segments) const {
  size_t covered = 0;  // everything before it is in a segment
  const auto add_text = [&](size_t end) {
    if (covered < end) segments->push_back({text.substr(covered, end - covered)});
  };
  for (size_t i = 0; i < text.size();) {
    size_t match_end = 0;
    const int32_t index =
        starts_token_[static_cast<uint8_t>(text[i])] ? LongestAt(text, i, &match_end) : -1;
    if (index < 0) {
      ++i;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    size_t begin = i;
    size_t end = match_end;
    i = match_end;  // the search goes on behind the token itself, not behind what it strips
    if (token.single_word && TouchesWord(text, begin, end)) continue;
    if (token.lstrip) {
      while (begin > covered) {
        const size_t previous = LastChar(text.substr(0, begin));
        if (!IsSpaceAt(text, previous)) break;
        begin = previous;
      }
    }
    if (token.rstrip) {
      while (end < text.size() && IsSpaceAt(text, end)) end += DecodeChar(&text[end]).num_bytes;
    }
    add_text(begin);
    segments->push_back({text.substr(begin, end - begin), token.id});
    covered = end;
  }
  add_text(text.size());
}

}  // namespace assay::engine
