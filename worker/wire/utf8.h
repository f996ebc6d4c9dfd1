// Text fields of protobuf messages must be UTF-8: a message with any other bytes in one is refused
// by its reader as a whole. What a model or a file says is made so before it goes in.
#pragma once

#include <string>
#include <string_view>

namespace assay::worker {

// `bytes` with every byte that is not part of well-formed UTF-8 (Unicode 15, table 3-7) replaced by
// U+FFFD.
std::string ValidUtf8(std::string_view bytes);

}  // namespace assay::worker
