#include "engine/quant/method.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <utility>
#include <vector>

#include "base/names.h"
#include "base/status.h"
#include "engine/quant/quantize.h"

namespace assay::engine {
namespace {

constexpr int kMinBitWidth = 2;
constexpr int kMaxBitWidth = 8;
constexpr int kDefaultGroupSize = 128;
constexpr int kMaxGroupSize = 1 << 20;
constexpr int kMaxVirtualShards = 64;

// What a method quantizes and which parameters it has.
struct MethodRule {
  std::string name;
  std::string bits;  // as messages say it
  bool weights = false;
  bool kv = false;
  bool has_pre_bias = false;
  // The method's own parameters with their defaults.
  std::map<std::string, std::string> clip_ratios;
};

const std::vector<MethodRule>& Rules() {
  static const std::vector<MethodRule> kRules = {
      {.name = "bf16", .bits = "16-16-16"},
      {.name = "kvquant_star", .bits = "16-16-2 to 16-16-8", .kv = true, .has_pre_bias = true},
      {.name = "quarot",
       .bits = "16-16-2 to 16-16-8",
       .kv = true,
       .clip_ratios = {{"k_clip_ratio", "0.95"}, {"v_clip_ratio", "0.95"}}},
      {.name = "rtn", .bits = "2-16-16 to 8-16-16", .weights = true},
  };
  return kRules;
}

absl::StatusOr<const MethodRule*> FindRule(const std::string& method) {
  for (const MethodRule& rule : Rules()) {
    if (rule.name == method) return &rule;
  }
  return InvalidArgument("unknown method '{}'{}; there are {}", method,
                         DidYouMean(method, KnownMethods()), fmt::join(KnownMethods(), ", "));
}

absl::Status CheckBits(const MethodRule& rule, const BitWidths& widths, const std::string& bits) {
  const auto in_range = [](bool quantized, int width) {
    return quantized ? width >= kMinBitWidth && width <= kMaxBitWidth : width == kUnquantizedBits;
  };
  if (in_range(rule.weights, widths.weight) && in_range(rule.kv, widths.kv) &&
      widths.activation == kUnquantizedBits) {
    return absl::OkStatus();
  }
  if (rule.name == "quarot" && widths.activation != kUnquantizedBits) {
    return InvalidArgument(
        "quarot with bits {} quantizes weights and activations, which is not in this version; "
        "quarot takes {}",
        bits, rule.bits);
  }
  return InvalidArgument("{} does not take bits {}; it takes {}", rule.name, bits, rule.bits);
}

// Parameters of other methods are refused: whoever set them expects them to matter.
absl::Status CheckFields(const MethodRule& rule, const MethodSpec& spec) {
  const auto refuse = [&](bool given, std::string_view field) {
    return given ? InvalidArgument("method {} has no {}; take it out", rule.name, field)
                 : absl::OkStatus();
  };
  if (!rule.weights) {
    ASSAY_RETURN_IF_ERROR(refuse(spec.group_size != 0, "group_size"));
    ASSAY_RETURN_IF_ERROR(refuse(spec.symmetric, "symmetric"));
    ASSAY_RETURN_IF_ERROR(refuse(spec.virtual_shards > 1, "virtual_shards"));
  }
  if (!rule.has_pre_bias) ASSAY_RETURN_IF_ERROR(refuse(spec.pre_bias, "pre_bias"));
  if (spec.group_size < -1 || spec.group_size > kMaxGroupSize) {
    return InvalidArgument("group_size {}: must be -1 (one group a row) or 1 to {}",
                           spec.group_size, kMaxGroupSize);
  }
  if (spec.virtual_shards < 0 || spec.virtual_shards > kMaxVirtualShards) {
    return InvalidArgument("virtual_shards {}: must be 1 to {}", spec.virtual_shards,
                           kMaxVirtualShards);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::map<std::string, std::string>> ResolveParameters(
    const MethodRule& rule, const std::map<std::string, std::string>& given) {
  std::map<std::string, std::string> resolved = rule.clip_ratios;
  for (const auto& [name, text] : given) {
    const auto parameter = resolved.find(name);
    if (parameter == resolved.end()) {
      return InvalidArgument("method {} has no {}; take it out", rule.name, name);
    }
    ASSAY_ASSIGN_OR_RETURN(const float ratio, ParseClipRatio(name, text));
    parameter->second = fmt::format("{}", ratio);
  }
  return resolved;
}

}  // namespace

absl::StatusOr<BitWidths> ParseBits(const std::string& bits) {
  BitWidths widths;
  const std::array<int*, 3> parts = {&widths.weight, &widths.activation, &widths.kv};
  const char* at = bits.data();
  const char* const end = at + bits.size();
  for (size_t i = 0; i < parts.size(); ++i) {
    const bool last = i + 1 == parts.size();
    const auto [next, error] = std::from_chars(at, end, *parts[i]);
    const bool separated = last ? next == end : next != end && *next == '-';
    if (error != std::errc() || *at == '-' || next - at > 2 || !separated) {
      return InvalidArgument("bits '{}': write weights-activations-cache, as 4-16-16", bits);
    }
    at = last ? next : next + 1;
  }
  return widths;
}

absl::StatusOr<float> ParseClipRatio(const std::string& parameter, const std::string& text) {
  float ratio = 0;
  const char* const end = text.data() + text.size();
  const auto [next, error] = std::from_chars(text.data(), end, ratio);
  if (error != std::errc() || next != end || !(ratio > 0) || ratio > 1) {
    return InvalidArgument("{} '{}': must be a number above 0 and at most 1", parameter, text);
  }
  return ratio;
}

const std::vector<std::string>& KnownMethods() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> names;
    for (const MethodRule& rule : Rules()) names.push_back(rule.name);
    return names;
  }();
  return kNames;
}

absl::StatusOr<MethodSpec> ResolveMethod(MethodSpec spec) {
  ASSAY_ASSIGN_OR_RETURN(const MethodRule* rule, FindRule(spec.method));
  if (spec.bits.empty()) {
    if (rule->weights || rule->kv) {
      return InvalidArgument("method {} needs bits; it takes {}", rule->name, rule->bits);
    }
    spec.bits = rule->bits;
  }
  ASSAY_ASSIGN_OR_RETURN(const BitWidths widths, ParseBits(spec.bits));
  ASSAY_RETURN_IF_ERROR(CheckBits(*rule, widths, spec.bits));
  ASSAY_RETURN_IF_ERROR(CheckFields(*rule, spec));
  ASSAY_ASSIGN_OR_RETURN(spec.parameters, ResolveParameters(*rule, spec.parameters));
  // "04-16-16" and "4-16-16" are one method and must be one key.
  spec.bits = fmt::format("{}-{}-{}", widths.weight, widths.activation, widths.kv);
  if (rule->weights && spec.group_size == 0) spec.group_size = kDefaultGroupSize;
  if (spec.virtual_shards == 0) spec.virtual_shards = 1;
  return spec;
}

bool NeedsCalibration(const MethodSpec& spec) { return spec.method == "kvquant_star"; }

}  // namespace assay::engine
