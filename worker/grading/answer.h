// Finding the final answer in a response.
//
// Where: after the last `</think>` when anything follows it; a response that was cut or has no such
// mark is searched whole. What: the last balanced \boxed{...} (also \fbox, and \boxed without
// braces); without a box, the last explicit statement ("the answer is 7", "Answer: 7", "#### 7",
// "A: 7"); without that, a box written while thinking. Never simply the last number of the text:
// a response that breaks off before it answers has no answer, even if the right number occurs in
// it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace assay::worker {

struct FinalAnswer {
  std::string text;  // inside the box, or what follows the statement up to the line's end
  bool from_box = false;
};

// Linear in the size of the response.
std::optional<FinalAnswer> FindFinalAnswer(std::string_view response);

// The content of the last balanced box of `text`; of nested boxes the inner one.
std::optional<std::string> LastBox(std::string_view text);

// LaTeX and Markdown that do not change the meaning of a short answer removed: math delimiters,
// spacing commands, \text-like wrappers, bold marks, outer braces, trailing dots.
std::string StripMarkup(std::string_view answer);

// StripMarkup, then: without spaces, in lower case, one spelling of fractions.
std::string NormalizeText(std::string_view answer);

}  // namespace assay::worker
