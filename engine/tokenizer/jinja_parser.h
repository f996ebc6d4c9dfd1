// Parses the part of Jinja that chat templates use: expressions in full, but for bit operators and
// star arguments; if, for, set, macro, break, continue, generation and raw.
#pragma once

#include <absl/status/statusor.h>

#include <string_view>
#include <vector>

#include "engine/tokenizer/jinja_ast.h"

namespace assay::engine::jinja {

// INVALID_ARGUMENT gives line and column of what is malformed or unknown (tags, filters and tests
// included), and of what nests too deeply.
absl::StatusOr<std::vector<Stmt>> ParseTemplate(std::string_view source);

}  // namespace assay::engine::jinja
