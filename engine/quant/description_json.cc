// assay_quant.json: QuantDescription to JSON and back. A key that is absent has the default of the
// struct; a key that is unknown is an error, since what it means would be silently left out.
#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/json_check.h"
#include "base/names.h"
#include "base/status.h"
#include "engine/quant/description.h"

namespace assay::engine {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMaxShards = 4096;
constexpr int kMaxSize = 1 << 24;

template <typename T>
struct Named {
  T value;
  const char* name;
};

constexpr Named<CodeType> kCodeTypes[] = {
    {CodeType::kNone, "none"}, {CodeType::kUniform, "uniform"}, {CodeType::kMxfp4, "mxfp4"}};
constexpr Named<Ties> kTies[] = {{Ties::kToEven, "to_even"},
                                 {Ties::kAwayFromZero, "away_from_zero"}};
using TransformKind = TransformSpec::Kind;
constexpr Named<TransformKind> kTransformKinds[] = {{TransformKind::kNone, "none"},
                                                    {TransformKind::kHadamard, "hadamard"},
                                                    {TransformKind::kKronecker, "kronecker"},
                                                    {TransformKind::kMatrix, "matrix"},
                                                    {TransformKind::kHeadMix, "head_mix"}};
using Granularity = CacheSpec::Granularity;
constexpr Named<Granularity> kGranularities[] = {
    {Granularity::kPerToken, "per_token"}, {Granularity::kPerChannelStatic, "per_channel_static"}};
using Position = CacheSpec::Position;
constexpr Named<Position> kPositions[] = {{Position::kAfterProjection, "after_projection"},
                                          {Position::kBeforeBias, "before_bias"},
                                          {Position::kBeforeRope, "before_rope"},
                                          {Position::kAfterRope, "after_rope"}};
using CacheTransform = CacheSpec::Transform;
constexpr Named<CacheTransform> kCacheTransforms[] = {{CacheTransform::kNone, "none"},
                                                      {CacheTransform::kHadamard, "hadamard"},
                                                      {CacheTransform::kMatrix, "matrix"}};

template <typename T, size_t kSize>
const char* NameOf(const Named<T> (&names)[kSize], T value) {
  for (const Named<T>& named : names) {
    if (named.value == value) return named.name;
  }
  return "?";
}

// 0.95f as 0.95, not as the double nearest to it.
Json Shortest(float x) { return Json::parse(fmt::format("{}", x), nullptr, false); }

Json Shortest(const std::vector<float>& values) {
  Json list = Json::array();
  for (const float x : values) list.push_back(Shortest(x));
  return list;
}

Json CacheJson(const CacheSpec& spec) {
  return {{"code_type", NameOf(kCodeTypes, spec.code_type)},
          {"bit_width", spec.bit_width},
          {"symmetric", spec.symmetric},
          {"group_size", spec.group_size},
          {"clip_ratio", Shortest(spec.clip_ratio)},
          {"learned_clip", spec.learned_clip},
          {"granularity", NameOf(kGranularities, spec.granularity)},
          {"position", NameOf(kPositions, spec.position)},
          {"transform", NameOf(kCacheTransforms, spec.transform)},
          {"ties", NameOf(kTies, spec.ties)}};
}

Json LinearJson(const LinearSpec& spec) {
  Json json = {{"code_type", NameOf(kCodeTypes, spec.code_type)},
               {"bit_width", spec.bit_width},
               {"symmetric", spec.symmetric},
               {"group_size", spec.group_size},
               {"with_permutation", spec.with_permutation},
               {"num_shards", spec.num_shards}};
  if (const TransformSpec& transform = spec.input_transform; transform != TransformSpec()) {
    json["input_transform"] = {{"kind", NameOf(kTransformKinds, transform.kind)},
                               {"with_diagonal", transform.with_diagonal},
                               {"left", transform.left},
                               {"right", transform.right},
                               {"owner", transform.owner}};
  }
  if (const InputQuantizerSpec& input = spec.input_quantizer; input != InputQuantizerSpec()) {
    json["input_quantizer"] = {{"code_type", NameOf(kCodeTypes, input.code_type)},
                               {"bit_width", input.bit_width},
                               {"symmetric", input.symmetric},
                               {"clip_ratio", Shortest(input.clip_ratio)},
                               {"clip_max", Shortest(input.clip_max)},
                               {"clip_min", Shortest(input.clip_min)},
                               {"ties", NameOf(kTies, input.ties)}};
  }
  return json;
}

// Reads the keys of one object into fields; the first error stays. Finish() adds the error of keys
// that nobody asked for.
class ObjectReader {
 public:
  ObjectReader(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
    if (!json.is_object()) status_ = InvalidArgument("{}: not an object", where_);
  }

  void Read(const char* key, bool* field) {
    if (const Json* value = Take(key)) {
      if (!value->is_boolean()) return Refuse(key, *value, "true or false");
      *field = value->get<bool>();
    }
  }
  void Read(const char* key, int* field, int min, int max) {
    if (const Json* value = Take(key)) {
      if (!value->is_number_integer() || !InRange(*value, min, max)) {
        return Refuse(key, *value, fmt::format("a whole number in {}..{}", min, max));
      }
      *field = value->get<int>();
    }
  }
  // A clip factor.
  void Read(const char* key, float* field) {
    if (const Json* value = Take(key)) {
      if (!IsClipFactor(*value)) return Refuse(key, *value, "a number above 0 and at most 1");
      *field = value->get<float>();
    }
  }
  void Read(const char* key, std::vector<float>* field) {
    if (const Json* value = Take(key)) {
      if (!value->is_array() || value->size() > kMaxShards ||
          !std::all_of(value->begin(), value->end(), IsClipFactor)) {
        return Refuse(key, *value, "a list of numbers above 0 and at most 1");
      }
      *field = value->get<std::vector<float>>();
    }
  }
  void Read(const char* key, std::string* field) {
    if (const Json* value = Take(key)) {
      if (!value->is_string()) return Refuse(key, *value, "a string");
      *field = value->get<std::string>();
    }
  }
  void Read(const char* key, std::map<std::string, std::string>* field) {
    const Json* const value = Take(key);
    if (value == nullptr) return;
    if (!value->is_object()) return Refuse(key, *value, "an object of strings");
    for (const auto& [name, text] : value->items()) {
      if (!text.is_string()) return Refuse(key, *value, "an object of strings");
      (*field)[name] = text.get<std::string>();
    }
  }
  template <typename T, size_t kSize>
  void Read(const char* key, T* field, const Named<T> (&names)[kSize]) {
    const Json* const value = Take(key);
    if (value == nullptr) return;
    std::string known;
    for (const Named<T>& named : names) {
      if (*value == named.name) {
        *field = named.value;
        return;
      }
      known += fmt::format("{}'{}'", known.empty() ? "" : ", ", named.name);
    }
    Refuse(key, *value, "one of " + known);
  }

  // The value of `key`, or null.
  const Json* Take(const char* key) {
    known_.push_back(key);
    if (!status_.ok()) return nullptr;
    const auto found = json_.find(key);
    return found == json_.end() ? nullptr : &*found;
  }

  void Refuse(const char* key, const Json& value, const std::string& needed) {
    const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
    Fail(InvalidArgument("{}: '{}' is {}; needed: {}", where_, key, text.substr(0, 100), needed));
  }
  void Fail(const absl::Status& status) { status_.Update(status); }

  absl::Status Finish() {
    if (!status_.ok()) return status_;
    for (const auto& [key, value] : json_.items()) {
      if (std::ranges::find(known_, key) == known_.end()) {
        return InvalidArgument("{}: unknown key '{}'{}", where_, key, DidYouMean(key, known_));
      }
    }
    return absl::OkStatus();
  }

 private:
  static bool InRange(const Json& value, int min, int max) {
    if (value.is_number_unsigned()) {
      return value.get<uint64_t>() <= static_cast<uint64_t>(std::max(max, 0)) &&
             value.get<int64_t>() >= min;
    }
    return value.get<int64_t>() >= min && value.get<int64_t>() <= max;
  }
  static bool IsClipFactor(const Json& value) {
    return value.is_number() && value.get<double>() > 1e-6 && value.get<double>() <= 1;
  }

  const Json& json_;
  const std::string where_;
  std::vector<std::string> known_;
  absl::Status status_;
};

void ReadCodes(ObjectReader* reader, CodeType* code_type, int* bit_width) {
  reader->Read("code_type", code_type, kCodeTypes);
  reader->Read("bit_width", bit_width, 2, 16);
}

absl::StatusOr<CacheSpec> ReadCache(const Json& json, CacheSpec spec, const std::string& where) {
  ObjectReader reader(json, where);
  ReadCodes(&reader, &spec.code_type, &spec.bit_width);
  reader.Read("symmetric", &spec.symmetric);
  reader.Read("group_size", &spec.group_size, 0, kMaxSize);
  reader.Read("clip_ratio", &spec.clip_ratio);
  reader.Read("learned_clip", &spec.learned_clip);
  reader.Read("granularity", &spec.granularity, kGranularities);
  reader.Read("position", &spec.position, kPositions);
  reader.Read("transform", &spec.transform, kCacheTransforms);
  reader.Read("ties", &spec.ties, kTies);
  ASSAY_RETURN_IF_ERROR(reader.Finish());
  return spec;
}

absl::StatusOr<LinearSpec> ReadLinear(const Json& json, const std::string& where) {
  LinearSpec spec;
  ObjectReader reader(json, where);
  ReadCodes(&reader, &spec.code_type, &spec.bit_width);
  reader.Read("symmetric", &spec.symmetric);
  reader.Read("group_size", &spec.group_size, -1, kMaxSize);
  reader.Read("with_permutation", &spec.with_permutation);
  reader.Read("num_shards", &spec.num_shards, 1, kMaxShards);
  if (const Json* const transform = reader.Take("input_transform")) {
    ObjectReader inner(*transform, where + ": input_transform");
    inner.Read("kind", &spec.input_transform.kind, kTransformKinds);
    inner.Read("with_diagonal", &spec.input_transform.with_diagonal);
    inner.Read("left", &spec.input_transform.left, 0, kMaxSize);
    inner.Read("right", &spec.input_transform.right, 0, kMaxSize);
    inner.Read("owner", &spec.input_transform.owner);
    reader.Fail(inner.Finish());
  }
  if (const Json* const input = reader.Take("input_quantizer")) {
    ObjectReader inner(*input, where + ": input_quantizer");
    ReadCodes(&inner, &spec.input_quantizer.code_type, &spec.input_quantizer.bit_width);
    inner.Read("symmetric", &spec.input_quantizer.symmetric);
    inner.Read("clip_ratio", &spec.input_quantizer.clip_ratio);
    inner.Read("clip_max", &spec.input_quantizer.clip_max);
    inner.Read("clip_min", &spec.input_quantizer.clip_min);
    inner.Read("ties", &spec.input_quantizer.ties, kTies);
    reader.Fail(inner.Finish());
  }
  ASSAY_RETURN_IF_ERROR(reader.Finish());
  return spec;
}

}  // namespace

std::string ToJson(const QuantDescription& description) {
  Json json = {{"format_version", QuantDescription::kFormatVersion},
               {"method", description.method},
               {"bits", description.bits},
               {"parameters", description.parameters},
               {"provenance", description.provenance},
               {"virtual_shards", description.virtual_shards},
               {"k_cache", CacheJson(description.k_cache)},
               {"v_cache", CacheJson(description.v_cache)},
               {"linears", Json::object()}};
  for (const auto& [name, spec] : description.linears) json["linears"][name] = LinearJson(spec);
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::StatusOr<QuantDescription> DescriptionFromJson(std::string_view text) {
  ASSAY_RETURN_IF_ERROR(CheckJson(text, kDescriptionFile, /*max_depth=*/8));
  const Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return InvalidArgument("description: not an object");
  QuantDescription description;
  ObjectReader reader(json, "description");
  int version = 0;
  reader.Read("format_version", &version, 1, kMaxSize);
  if (version != QuantDescription::kFormatVersion) {
    // Before anything else: another version may have other keys.
    return InvalidArgument("format_version is {}; this build reads {}",
                           version == 0 ? "missing" : fmt::format("{}", version),
                           QuantDescription::kFormatVersion);
  }
  reader.Read("method", &description.method);
  reader.Read("bits", &description.bits);
  reader.Read("parameters", &description.parameters);
  reader.Read("provenance", &description.provenance);
  reader.Read("virtual_shards", &description.virtual_shards, 1, kMaxShards);
  if (const Json* const cache = reader.Take("k_cache")) {
    ASSAY_ASSIGN_OR_RETURN(description.k_cache, ReadCache(*cache, description.k_cache, "k_cache"));
  }
  if (const Json* const cache = reader.Take("v_cache")) {
    ASSAY_ASSIGN_OR_RETURN(description.v_cache, ReadCache(*cache, description.v_cache, "v_cache"));
  }
  if (const Json* const linears = reader.Take("linears")) {
    if (!linears->is_object()) return InvalidArgument("description: 'linears' is no object");
    for (const auto& [name, spec] : linears->items()) {
      ASSAY_ASSIGN_OR_RETURN(description.linears[name], ReadLinear(spec, "linear " + name));
    }
  }
  ASSAY_RETURN_IF_ERROR(reader.Finish());
  ASSAY_RETURN_IF_ERROR(CheckConsistent(description));
  return description;
}

}  // namespace assay::engine
