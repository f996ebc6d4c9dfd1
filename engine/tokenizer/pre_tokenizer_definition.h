// The "pre_tokenizer" of tokenizer.json. Internal: includes the JSON library.
#pragma once

#include <absl/status/statusor.h>

#include <vector>

#include "engine/tokenizer/json_reader.h"
#include "engine/tokenizer/pre_tokenizer.h"

namespace assay::engine {

// The steps of a Split, Digits, ByteLevel or Sequence of them, the last two being optional parts of
// any number. INVALID_ARGUMENT for other types, for patterns that cannot be served exactly, and
// when no step is a ByteLevel.
absl::StatusOr<std::vector<PreTokenizerStep>> ReadPreTokenizer(const JsonReader& reader);

}  // namespace assay::engine
