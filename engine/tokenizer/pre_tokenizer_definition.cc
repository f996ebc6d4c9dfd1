#include "engine/tokenizer/pre_tokenizer_definition.h"

#include "base/status.h"
#include "engine/tokenizer/unicode.h"

namespace assay::engine {
namespace {

constexpr int kMaxNesting = 8;
constexpr size_t kMaxSteps = 64;

// A character of general category N; with `max_chars` one, each by itself.
class DigitsPattern final : public Pattern {
 public:
  bool Find(std::string_view text, size_t from, PatternMatch* match) const override {
    const CharClasses& classes = CharClasses::Get();
    for (size_t i = from; i < text.size();) {
      const DecodedChar c = DecodeChar(text.data() + i);
      if (classes[c.code_point] & kNumber) {
        *match = {i, i + c.num_bytes};
        return true;
      }
      i += c.num_bytes;
    }
    return false;
  }
};

absl::StatusOr<SplitBehavior> ReadBehavior(const JsonReader& step) {
  ASSAY_ASSIGN_OR_RETURN(const JsonReader reader, step.Member("behavior"));
  ASSAY_ASSIGN_OR_RETURN(const std::string name, reader.String());
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return reader.Error(fmt::format(
      "unknown behavior '{}'; there are Removed, Isolated, MergedWithPrevious, MergedWithNext and "
      "Contiguous",
      name));
}

absl::StatusOr<std::unique_ptr<Pattern>> ReadPattern(const JsonReader& reader) {
  ASSAY_ASSIGN_OR_RETURN(const JsonReader literal, reader.Member("String"));
  if (!literal.is_null()) {
    ASSAY_ASSIGN_OR_RETURN(std::string text, literal.String());
    if (text.empty()) return literal.Error("an empty pattern splits nothing");
    return MakeLiteralPattern(std::move(text));
  }
  ASSAY_ASSIGN_OR_RETURN(const JsonReader regex, reader.Member("Regex"));
  ASSAY_ASSIGN_OR_RETURN(const std::string text, regex.String());
  if (std::unique_ptr<Pattern> known = MakeKnownPattern(text)) return known;
  absl::StatusOr<std::unique_ptr<Pattern>> compiled = CompileRegex(text);
  if (!compiled.ok()) return regex.Error(Message(compiled.status()));
  return compiled;
}

absl::Status ReadSteps(const JsonReader& reader, int nesting,
                       std::vector<PreTokenizerStep>* steps) {
  if (nesting > kMaxNesting) return reader.Error("sequences are nested too deeply");
  if (steps->size() >= kMaxSteps) return reader.Error(fmt::format("over {} steps", kMaxSteps));
  ASSAY_ASSIGN_OR_RETURN(const std::string type, reader.StringMember("type"));
  PreTokenizerStep step;
  if (type == "Sequence") {
    ASSAY_ASSIGN_OR_RETURN(const JsonReader parts, reader.Member("pretokenizers"));
    ASSAY_ASSIGN_OR_RETURN(const std::vector<JsonReader> elements, parts.Elements());
    for (const JsonReader& element : elements) {
      ASSAY_RETURN_IF_ERROR(ReadSteps(element, nesting + 1, steps));
    }
    return absl::OkStatus();
  }
  if (type == "Split") {
    ASSAY_ASSIGN_OR_RETURN(const JsonReader pattern, reader.Member("pattern"));
    ASSAY_ASSIGN_OR_RETURN(step.pattern, ReadPattern(pattern));
    ASSAY_ASSIGN_OR_RETURN(step.behavior, ReadBehavior(reader));
    ASSAY_ASSIGN_OR_RETURN(step.invert, reader.BoolMember("invert", false));
  } else if (type == "Digits") {
    ASSAY_ASSIGN_OR_RETURN(const bool individual, reader.BoolMember("individual_digits", false));
    step.pattern = std::make_unique<DigitsPattern>();
    step.behavior = individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous;
  } else if (type == "ByteLevel") {
    ASSAY_ASSIGN_OR_RETURN(step.add_prefix_space, reader.BoolMember("add_prefix_space", true));
    ASSAY_ASSIGN_OR_RETURN(const bool use_regex, reader.BoolMember("use_regex", true));
    if (use_regex) step.pattern = MakeKnownPattern(known_patterns::kGpt2);
    step.to_alphabet = true;
  } else {
    return reader.Error(fmt::format(
        "pre-tokenizer '{}' is not served; Split, Digits, ByteLevel and Sequence are", type));
  }
  steps->push_back(std::move(step));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<PreTokenizerStep>> ReadPreTokenizer(const JsonReader& reader) {
  std::vector<PreTokenizerStep> steps;
  if (!reader.is_null()) ASSAY_RETURN_IF_ERROR(ReadSteps(reader, 0, &steps));
  for (const PreTokenizerStep& step : steps) {
    if (step.to_alphabet) return steps;
  }
  return reader.Error("no ByteLevel step; only byte-level BPE is served");
}

}  // namespace assay::engine
