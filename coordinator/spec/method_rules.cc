#include "coordinator/spec/method_rules.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "base/names.h"
#include "base/status.h"

namespace assay::coordinator {
namespace {

constexpr int kUnquantized = 16;
constexpr int kMinBitWidth = 2;
constexpr int kMaxBitWidth = 8;
constexpr int32_t kDefaultGroupSize = 128;
constexpr int32_t kMaxGroupSize = 1 << 20;
constexpr int32_t kMaxVirtualShards = 64;

struct BitWidths {
  int weight = kUnquantized;
  int activation = kUnquantized;
  int kv = kUnquantized;
};

// What a method quantizes and which parameters it has.
struct MethodRule {
  std::string name;
  std::string bits;  // as messages say it
  bool weights = false;
  bool kv = false;
  bool has_group_size = false;
  bool has_symmetric = false;
  bool has_pre_bias = false;
  bool has_virtual_shards = false;
  bool needs_calibration = false;
};

const std::vector<MethodRule>& Rules() {
  static const std::vector<MethodRule> kRules = {
      {.name = "bf16", .bits = "16-16-16"},
      {.name = "kvquant_star",
       .bits = "16-16-2 to 16-16-8",
       .kv = true,
       .has_pre_bias = true,
       .needs_calibration = true},
      {.name = "quarot", .bits = "16-16-2 to 16-16-8", .kv = true},
      {.name = "rtn",
       .bits = "2-16-16 to 8-16-16",
       .weights = true,
       .has_group_size = true,
       .has_symmetric = true,
       .has_virtual_shards = true},
  };
  return kRules;
}

constexpr std::array<std::string_view, 5> kLaterMethods = {"awq", "gptq", "smoothquant",
                                                           "flatquant", "mxfp4"};

absl::StatusOr<BitWidths> ParseBits(const std::string& bits) {
  BitWidths widths;
  const std::array<int*, 3> parts = {&widths.weight, &widths.activation, &widths.kv};
  const char* at = bits.data();
  const char* const end = at + bits.size();
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto [next, error] = std::from_chars(at, end, *parts[i]);
    const bool last = i + 1 == parts.size();
    const bool separated = last ? next == end : next != end && *next == '-';
    if (error != std::errc() || *at == '-' || next - at > 2 || !separated) {
      return InvalidArgument("bits '{}': write weights-activations-cache, as 4-16-16", bits);
    }
    at = last ? next : next + 1;
  }
  return widths;
}

bool InRange(int width) { return width >= kMinBitWidth && width <= kMaxBitWidth; }

absl::Status CheckBits(const MethodRule& rule, const std::string& bits, const BitWidths& widths) {
  const bool weights_ok = rule.weights ? InRange(widths.weight) : widths.weight == kUnquantized;
  const bool kv_ok = rule.kv ? InRange(widths.kv) : widths.kv == kUnquantized;
  if (weights_ok && kv_ok && widths.activation == kUnquantized) return absl::OkStatus();
  if (rule.name == "quarot" && widths.activation != kUnquantized) {
    return InvalidArgument(
        "quarot with bits {} quantizes weights and activations, which is not in this version; "
        "quarot takes {}",
        bits, rule.bits);
  }
  return InvalidArgument("{} does not take bits {}; it takes {}", rule.name, bits, rule.bits);
}

absl::StatusOr<const MethodRule*> FindRule(const std::string& method) {
  for (const MethodRule& rule : Rules()) {
    if (rule.name == method) return &rule;
  }
  if (std::find(kLaterMethods.begin(), kLaterMethods.end(), method) != kLaterMethods.end()) {
    return InvalidArgument("method {} is not in this version; it has {}", method,
                           fmt::join(KnownMethods(), ", "));
  }
  return InvalidArgument("unknown method '{}'{}; there are {}", method,
                         DidYouMean(method, KnownMethods()), fmt::join(KnownMethods(), ", "));
}

absl::Status CheckParameters(const MethodRule& rule, const MethodRequest& request) {
  const auto refuse = [&](bool given, bool has, std::string_view parameter) {
    if (!given || has) return absl::OkStatus();
    return InvalidArgument("method {} has no {}; take it out", rule.name, parameter);
  };
  ASSAY_RETURN_IF_ERROR(refuse(request.group_size.has_value(), rule.has_group_size, "group_size"));
  ASSAY_RETURN_IF_ERROR(refuse(request.symmetric.has_value(), rule.has_symmetric, "symmetric"));
  ASSAY_RETURN_IF_ERROR(refuse(request.pre_bias.has_value(), rule.has_pre_bias, "pre_bias"));
  ASSAY_RETURN_IF_ERROR(
      refuse(request.virtual_shards.has_value(), rule.has_virtual_shards, "virtual_shards"));
  ASSAY_RETURN_IF_ERROR(
      refuse(request.calibration_set.has_value(), rule.needs_calibration, "calibration"));

  if (rule.needs_calibration && request.calibration_set.value_or("").empty()) {
    return InvalidArgument(
        "method {} needs a calibration set: add 'calibration: NAME' of a file NAME.jsonl under the "
        "calibration roots",
        rule.name);
  }
  const int32_t group_size = request.group_size.value_or(kDefaultGroupSize);
  if (group_size != -1 && (group_size < 1 || group_size > kMaxGroupSize)) {
    return InvalidArgument("group_size {}: must be -1 (one group a row) or 1 to {}", group_size,
                           kMaxGroupSize);
  }
  const int32_t shards = request.virtual_shards.value_or(1);
  if (shards < 1 || shards > kMaxVirtualShards) {
    return InvalidArgument("virtual_shards {}: must be 1 to {}", shards, kMaxVirtualShards);
  }
  return absl::OkStatus();
}

// What a table calls the method: its name and what differs from the defaults.
std::string Label(const storage::MethodRecord& method, const MethodRule& rule) {
  std::string label = method.method;
  if (method.pre_bias) label += " pre-bias";
  if (rule.has_group_size && method.group_size != kDefaultGroupSize) {
    label += method.group_size == -1 ? " per-channel" : fmt::format(" g{}", method.group_size);
  }
  if (method.symmetric) label += " symmetric";
  if (method.virtual_shards > 1) label += fmt::format(" T{}", method.virtual_shards);
  return label;
}

}  // namespace

absl::StatusOr<storage::MethodRecord> ResolveMethod(const MethodRequest& request) {
  ASSAY_ASSIGN_OR_RETURN(const MethodRule* rule, FindRule(request.method));
  storage::MethodRecord method;
  method.method = rule->name;
  method.bits = request.bits;
  if (method.bits.empty()) {
    if (rule->weights || rule->kv) {
      return InvalidArgument("method {} needs bits; it takes {}", rule->name, rule->bits);
    }
    method.bits = rule->bits;
  }
  ASSAY_ASSIGN_OR_RETURN(const BitWidths widths, ParseBits(method.bits));
  ASSAY_RETURN_IF_ERROR(CheckBits(*rule, method.bits, widths));
  // "04-16-16" and "4-16-16" are one method and must be one key.
  method.bits = fmt::format("{}-{}-{}", widths.weight, widths.activation, widths.kv);
  ASSAY_RETURN_IF_ERROR(CheckParameters(*rule, request));

  if (rule->has_group_size) method.group_size = request.group_size.value_or(kDefaultGroupSize);
  method.symmetric = request.symmetric.value_or(false);
  method.pre_bias = request.pre_bias.value_or(false);
  method.virtual_shards = request.virtual_shards.value_or(1);
  method.calibration_set = request.calibration_set.value_or("");
  method.label = Label(method, *rule);
  return method;
}

storage::MethodRecord BaselineMethod() {
  storage::MethodRecord method;
  method.method = "bf16";
  method.bits = "16-16-16";
  method.label = "bf16";
  return method;
}

const std::vector<std::string>& KnownMethods() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> names;
    for (const MethodRule& rule : Rules()) names.push_back(rule.name);
    return names;
  }();
  return kNames;
}

}  // namespace assay::coordinator
