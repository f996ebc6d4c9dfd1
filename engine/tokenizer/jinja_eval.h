// Runs a parsed template.
//
// Variables live in frames: one for the template, one for each turn of a loop and each call of a
// macro. `set` writes to the innermost, so what a loop sets is gone with its turn; a namespace is
// how a template carries something out of it.
//
// A template comes from outside. Its steps, the depth of its calls, and the bytes it makes are
// bounded: beyond, it fails.
#pragma once

#include <absl/status/statusor.h>

#include <string>
#include <vector>

#include "engine/tokenizer/jinja_ast.h"

namespace assay::engine::jinja {

// The output for the given variables. Thread-safe: it reads the statements only. INVALID_ARGUMENT
// says where, and what went wrong or what the template raised.
absl::StatusOr<std::string> Render(const std::vector<Stmt>& statements, Dict variables);

}  // namespace assay::engine::jinja
