// YAML as a tree that remembers where everything stood.
//
// The part of YAML that specs need: one document of mappings with plain keys, sequences and
// scalars. Anchors, aliases, tags and repeated keys are refused (an alias can blow a small file up
// to anything, and nobody needs one here), and so is what is too deep or has too many nodes.
#pragma once

#include <absl/status/statusor.h>

#include <string>
#include <vector>

#include "coordinator/spec/sweep_spec.h"

namespace assay::coordinator {

struct YamlNode {
  enum class Kind { kNull, kScalar, kSequence, kMapping };

  struct Key {
    std::string name;
    SpecPosition where;
  };

  Kind kind = Kind::kNull;
  std::string text;              // of a scalar
  bool quoted = false;           // a quoted scalar is a string whatever it looks like
  std::vector<Key> keys;         // of a mapping, one per value
  std::vector<YamlNode> values;  // of a mapping or a sequence
  SpecPosition where;
};

// The document's root. INVALID_ARGUMENT "file:line:column: ...".
absl::StatusOr<YamlNode> ParseYaml(const std::string& text, const std::string& file_name);

}  // namespace assay::coordinator
