#include "coordinator/planner/content_keys.h"

#include <fmt/format.h>

#include "base/hash.h"

namespace assay::coordinator {

std::string ArtifactKey(const std::string& model_hash, const storage::MethodRecord& method,
                        const std::string& calibration_hash, const std::string& quantizer_version) {
  Sha256 key;
  key.UpdateField("assay-artifact-1");
  key.UpdateField(model_hash);
  key.UpdateField(method.method);
  key.UpdateField(method.bits);
  key.UpdateField(fmt::format("{} {} {} {}", method.group_size, method.symmetric, method.pre_bias,
                              method.virtual_shards));
  key.UpdateField(method.parameters_json);
  key.UpdateField(calibration_hash);
  key.UpdateField(quantizer_version);
  return key.HexDigest();
}

std::string CellKey(const std::string& model_hash, const std::string& artifact_key,
                    const storage::BenchmarkRecord& benchmark,
                    const storage::SamplingRecord& sampling, int tensor_parallel_size,
                    const std::string& engine_numerics_version) {
  Sha256 key;
  key.UpdateField("assay-cell-1");
  key.UpdateField(artifact_key.empty() ? "model" : "artifact");
  key.UpdateField(artifact_key.empty() ? model_hash : artifact_key);
  key.UpdateField(benchmark.version_hash);
  key.UpdateField(benchmark.prompt_version);
  // {} prints the shortest text that reads back as the same number.
  key.UpdateField(fmt::format("{} {} {} {} {} {}", sampling.temperature, sampling.top_p,
                              sampling.top_k, sampling.max_tokens, sampling.max_model_len,
                              sampling.seed));
  key.UpdateField(sampling.budget_forcing_json);
  key.UpdateField(fmt::format("{}", tensor_parallel_size));
  key.UpdateField(engine_numerics_version);
  return key.HexDigest();
}

}  // namespace assay::coordinator
