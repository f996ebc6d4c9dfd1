// Added tokens: strings that are cut out of the text, whole, before anything else sees it.
//
// The longest of the leftmost matches wins, in one pass over the text through a trie. Two matchers
// work one after the other: tokens with normalized=false on the raw text, the others, normalized
// themselves, on the normalized rest.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace assay::engine {

struct AddedToken {
  int32_t id = 0;
  std::string content;       // never empty
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space on its left with it
  bool rstrip = false;
  bool normalized = true;
  bool special = false;  // left out of decoded text on request
};

// Immutable; thread-safe.
class AddedTokenMatcher {
 public:
  // A longer token would let text make the search slow.
  static constexpr size_t kMaxTokenBytes = 1024;

  // A piece of text, or an added token found in it.
  struct Segment {
    std::string_view text;
    int32_t id = -1;  // -1: text
  };

  // What `content` says is matched. At most kMaxTokenBytes each; of equal ones the first counts.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  // Appends the segments of `text` (valid UTF-8).
  void Split(std::string_view text, std::vector<Segment>* segments) const;

 private:
  struct Node {
    int32_t token = -1;  // index into tokens_
  };

  // The longest token at `begin`: index and end; -1 when there is none.
  int32_t LongestAt(std::string_view text, size_t begin, size_t* end) const;

  std::vector<AddedToken> tokens_;
  bool starts_token_[256] = {};
  std::vector<Node> nodes_;
  std::unordered_map<uint64_t, uint32_t> children_;  // node << 8 | byte -> node
};

}  // namespace assay::engine
