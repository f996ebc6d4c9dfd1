// What a JSON parser lets pass and hostile input abuses: names that come twice (which of the two
// counts depends on the reader) and nesting without end.
#pragma once

#include <absl/status/status.h>

#include <string_view>

namespace assay {

// OK when `text` is one JSON value whose objects hold no name twice and which nests at most
// `max_depth` deep. INVALID_ARGUMENT starts with `what` (a path) and says what is wrong and where.
// Afterwards any parser may read it.
absl::Status CheckJson(std::string_view text, std::string_view what, int max_depth = 32);

}  // namespace assay
