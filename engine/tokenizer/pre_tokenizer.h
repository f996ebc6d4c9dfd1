// Pre-tokenization: cuts text into the pieces that BPE works on, one step after the other.
//
// Every step cuts each piece of the step before it by itself: a look-ahead at the end of a piece
// sees the end of text. The steps are those of the reference: Split, Digits, ByteLevel.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/pattern.h"

namespace assay::engine {

// What happens to the matches of a pattern.
enum class SplitBehavior {
  kRemoved,             // they vanish
  kIsolated,            // each is a piece
  kMergedWithPrevious,  // each ends the piece before it
  kMergedWithNext,      // each begins the piece behind it
  kContiguous,          // as isolated, neighbours joined
};

struct PreTokenizerStep {
  std::unique_ptr<Pattern> pattern;  // null: no cut
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;            // what does not match counts as a match
  bool add_prefix_space = false;  // each piece gets a blank in front unless it has one
  bool to_alphabet = false;       // pieces are then written in the byte-level alphabet
};

// The pieces of one text. Views into the text or into `owned`; empty pieces are left out.
struct Pieces {
  std::vector<std::string_view> views;
  std::deque<std::string> owned;  // a deque: its elements stay where they are
  std::vector<std::string_view> scratch;
};

// Immutable; thread-safe.
class PreTokenizer {
 public:
  // At least one step must write the alphabet: that is what makes the model byte-level.
  explicit PreTokenizer(std::vector<PreTokenizerStep> steps);

  // Cuts `text` (valid UTF-8), which outlives the pieces. Clears `pieces` first. The pieces are
  // bytes: what the last writing of the alphabet did is undone, or better, not done at all.
  void Split(std::string_view text, Pieces* pieces) const;

 private:
  std::vector<PreTokenizerStep> steps_;
  bool ends_in_alphabet_ = false;
};

}  // namespace assay::engine
