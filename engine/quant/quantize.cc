#include "engine/quant/quantize.h"

#include <filesystem>
#include <memory>
#include <utility>

#include "base/status.h"
#include "engine/model/config.h"
#include "engine/quant/artifact.h"
#include "engine/quant/description.h"
#include "engine/quant/kv_methods.h"
#include "engine/quant/rtn.h"
#include "engine/weights/checkpoint.h"

namespace assay::engine {
namespace {

// All parameters as the artifact records them.
std::map<std::string, std::string> AllParameters(const MethodSpec& method) {
  std::map<std::string, std::string> parameters = method.parameters;
  if (method.method == "rtn") {
    parameters["group_size"] = fmt::format("{}", method.group_size);
    parameters["symmetric"] = method.symmetric ? "true" : "false";
    parameters["virtual_shards"] = fmt::format("{}", method.virtual_shards);
  }
  if (method.method == "kvquant_star") parameters["pre_bias"] = method.pre_bias ? "true" : "false";
  return parameters;
}

absl::Status RunMethod(const MethodSpec& method, const QuantizeRequest& request,
                       const ModelConfig& config, const Checkpoint& checkpoint,
                       Artifact* artifact) {
  if (method.method == "bf16") return absl::OkStatus();
  if (method.method == "rtn") return QuantizeRtn(method, config, checkpoint, artifact);
  if (method.method == "kvquant_star") {
    return QuantizeKvquantStar(method, request, config, checkpoint, artifact);
  }
  if (method.method == "quarot") return QuantizeQuarotKv(method, config, artifact);
  return Internal("method {} is known but not run", method.method);
}

}  // namespace

absl::Status Quantize(const QuantizeRequest& request) {
  ASSAY_ASSIGN_OR_RETURN(const MethodSpec method, ResolveMethod(request.method));
  std::error_code error;
  // Before the work, not only after it.
  if (std::filesystem::exists(request.output_dir, error)) {
    return AlreadyExists("{}: exists already", request.output_dir);
  }
  if (std::filesystem::exists(request.model_dir + "/" + kDescriptionFile, error)) {
    return InvalidArgument("{}: is an artifact already; quantize the model that it was made of",
                           request.model_dir);
  }
  ASSAY_ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(request.model_dir));
  ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                         Checkpoint::Open(request.model_dir));
  Artifact artifact;
  artifact.description.method = method.method;
  artifact.description.bits = method.bits;
  artifact.description.parameters = AllParameters(method);
  artifact.description.provenance = request.provenance;
  artifact.description.virtual_shards = method.virtual_shards;
  ASSAY_RETURN_IF_ERROR(RunMethod(method, request, config, *checkpoint, &artifact));
  ASSAY_RETURN_IF_ERROR(CheckFits(artifact.description, config));
  return WriteArtifact(request.model_dir, *checkpoint, artifact, request.output_dir);
}

}  // namespace assay::engine
