// The nearest known name to a misspelt one, for error messages that suggest the remedy.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace assay {

// Levenshtein distance in bytes.
int EditDistance(std::string_view a, std::string_view b);

// The known name nearest to `name`, or empty when none is near (a distance above a third of the
// longer of the two, at least 2).
std::string NearestName(std::string_view name, std::span<const std::string> known);

// " (did you mean 'x'?)", or empty when nothing is near.
std::string DidYouMean(std::string_view name, std::span<const std::string> known);

}  // namespace assay
