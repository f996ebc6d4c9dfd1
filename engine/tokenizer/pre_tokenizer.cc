#include "engine/tokenizer/pre_tokenizer.h"

#include "base/status.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/unicode.h"

namespace assay::engine {
namespace {

struct Span {
  PatternMatch range;
  bool is_match;
};

// Calls `visit(Span)` for the matches and what lies between them, in order; together they cover
// `text`. A match of nothing right behind another match does not count; the search goes on one
// character further.
template <typename Visit>
void ForEachSpan(const Pattern& pattern, std::string_view text, const Visit& visit) {
  size_t covered = 0;
  size_t from = 0;
  size_t last_match_end = SIZE_MAX;
  PatternMatch match;
  while (from <= text.size() && pattern.Find(text, from, &match)) {
    if (match.begin == match.end && match.end == last_match_end) {
      from = match.end < text.size() ? match.end + DecodeChar(text.data() + match.end).num_bytes
                                     : text.size() + 1;
      continue;
    }
    if (covered != match.begin) visit(Span{{covered, match.begin}, false});
    visit(Span{match, true});
    covered = from = last_match_end = match.end;
  }
  if (covered != text.size()) visit(Span{{covered, text.size()}, false});
}

// The cuts of the merging behaviors, which look at neighbours.
std::vector<PatternMatch> MergeSpans(const std::vector<Span>& spans, SplitBehavior behavior) {
  std::vector<PatternMatch> merged;
  bool previous_is_match = false;
  if (behavior == SplitBehavior::kMergedWithNext) {
    for (size_t i = spans.size(); i-- > 0;) {
      if (spans[i].is_match && !previous_is_match && !merged.empty()) {
        merged.back().begin = spans[i].range.begin;
      } else {
        merged.push_back(spans[i].range);
      }
      previous_is_match = spans[i].is_match;
    }
    return {merged.rbegin(), merged.rend()};
  }
  for (const Span& span : spans) {
    const bool joins = behavior == SplitBehavior::kContiguous ? span.is_match == previous_is_match
                                                              : span.is_match && !previous_is_match;
    if (joins && !merged.empty()) {
      merged.back().end = span.range.end;
    } else {
      merged.push_back(span.range);
    }
    previous_is_match = span.is_match;
  }
  return merged;
}

void Cut(const PreTokenizerStep& step, std::string_view text,
         std::vector<std::string_view>* pieces) {
  const auto add = [&](const PatternMatch& range) {
    if (range.begin < range.end) {
      pieces->push_back(text.substr(range.begin, range.end - range.begin));
    }
  };
  switch (step.behavior) {
    case SplitBehavior::kIsolated:
      ForEachSpan(*step.pattern, text, [&](const Span& span) { add(span.range); });
      return;
    case SplitBehavior::kRemoved:
      ForEachSpan(*step.pattern, text, [&](const Span& span) {
        if (span.is_match == step.invert) add(span.range);
      });
      return;
    default:
      std::vector<Span> spans;
      ForEachSpan(*step.pattern, text, [&](const Span& span) {
        spans.push_back({span.range, span.is_match != step.invert});
      });
      for (const PatternMatch& range : MergeSpans(spans, step.behavior)) add(range);
  }
}

}  // namespace

PreTokenizer::PreTokenizer(std::vector<PreTokenizerStep> steps) : steps_(std::move(steps)) {
  bool writes_alphabet = false;
  for (const PreTokenizerStep& step : steps_) writes_alphabet |= step.to_alphabet;
  ASSAY_CHECK(writes_alphabet);
  // Nearly always the last step is the one, and then there is nothing to do and undo.
  ends_in_alphabet_ = !steps_.back().to_alphabet;
  steps_.back().to_alphabet = false;
}

void PreTokenizer::Split(std::string_view text, Pieces* pieces) const {
  pieces->owned.clear();
  pieces->views.clear();
  if (text.empty()) return;
  pieces->views.push_back(text);
  const auto own = [&](std::string piece) -> std::string_view {
    return pieces->owned.emplace_back(std::move(piece));
  };
  for (const PreTokenizerStep& step : steps_) {
    if (step.add_prefix_space) {
      for (std::string_view& piece : pieces->views) {
        if (piece[0] != ' ') piece = own(std::string(" ").append(piece));
      }
    }
    if (step.pattern != nullptr) {
      pieces->scratch.clear();
      for (const std::string_view piece : pieces->views) Cut(step, piece, &pieces->scratch);
      pieces->views.swap(pieces->scratch);
    }
    if (step.to_alphabet) {
      for (std::string_view& piece : pieces->views) piece = own(BytesToAlphabet(piece));
    }
  }
  if (ends_in_alphabet_) {
    for (std::string_view& piece : pieces->views) piece = own(*AlphabetToBytes(piece));
  }
}

}  // namespace assay::engine
