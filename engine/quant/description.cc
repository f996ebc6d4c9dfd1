#include "engine/quant/description.h"

#include <filesystem>

#include "base/file.h"
#include "base/status.h"

namespace assay::engine {

bool QuantDescription::quantizes_anything() const {
  const auto touches_cache = [](const CacheSpec& cache) {
    return cache.code_type != CodeType::kNone || cache.transform != CacheSpec::Transform::kNone;
  };
  return !linears.empty() || touches_cache(k_cache) || touches_cache(v_cache);
}

absl::StatusOr<QuantDescription> LoadDescription(const std::string& model_dir) {
  constexpr int64_t kMaxBytes = 64 << 20;
  const std::string path = model_dir + "/" + kDescriptionFile;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return QuantDescription();
  ASSAY_ASSIGN_OR_RETURN(const std::string json, ReadFile(path, kMaxBytes));
  absl::StatusOr<QuantDescription> description = DescriptionFromJson(json);
  if (!description.ok()) return Annotate(description.status(), path);
  return description;
}

}  // namespace assay::engine
