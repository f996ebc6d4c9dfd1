#include "tests/golden/quantized_cells.h"

#include <algorithm>
#include <bit>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/status.h"
#include "engine/model/config.h"
#include "engine/model/linears.h"
#include "engine/quant/description.h"
#include "engine/quant/packed_linear.h"
#include "engine/quant/quantize.h"
#include "engine/runtime/engine.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/weights/checkpoint.h"
#include "tests/testing/paths.h"

namespace assay::engine::testing {
namespace {

using assay::testing::SourcePath;

std::vector<nlohmann::json> ReadJsonLines(const std::string& path) {
  std::vector<nlohmann::json> records;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) records.push_back(nlohmann::json::parse(line));
  return records;
}

absl::StatusOr<std::vector<std::vector<int32_t>>> CalibrationIds(const std::string& model_dir) {
  ASSAY_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Load(model_dir));
  ASSAY_ASSIGN_OR_RETURN(const auto chat_template, ChatTemplate::Load(model_dir));
  std::vector<std::vector<int32_t>> documents;
  for (const auto& record : ReadJsonLines(SourcePath("examples/calibration/arith-traces.jsonl"))) {
    ASSAY_ASSIGN_OR_RETURN(const std::string prompt,
                           chat_template->Render({{"user", record.at("question")}}, true));
    documents.push_back(
        tokenizer->Encode(prompt + record.at("response").get<std::string>(), false));
  }
  return documents;
}

}  // namespace

std::string QuantizedCell::name() const {
  std::string name = model + "_" + method + "_" + bits + (pre_bias ? "_pre_bias" : "");
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
}

absl::StatusOr<std::string> MakeCell(const QuantizedCell& cell, const std::string& directory) {
  const std::string model_dir = SourcePath("examples/models/" + cell.model);
  if (cell.method == "bf16") return model_dir;
  const int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  ASSAY_ASSIGN_OR_RETURN(const auto model, Engine::Load(model_dir, {.num_threads = threads}));
  QuantizeRequest request;
  request.model_dir = model_dir;
  request.output_dir = directory + "/artifact";
  ASSAY_ASSIGN_OR_RETURN(
      request.method,
      ResolveMethod({.method = cell.method, .bits = cell.bits, .pre_bias = cell.pre_bias}));
  if (NeedsCalibration(request.method)) {
    ASSAY_ASSIGN_OR_RETURN(request.calibration_ids, CalibrationIds(model_dir));
  }
  request.forward = [&](const std::vector<int32_t>& ids, ForwardObserver* observer) {
    return model->Forward(ids, observer).status();
  };
  ASSAY_RETURN_IF_ERROR(Quantize(request));
  return request.output_dir;
}

absl::StatusOr<std::string> DecodeToBf16(const std::string& artifact_dir,
                                         const std::string& directory) {
  ASSAY_ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(artifact_dir));
  ASSAY_ASSIGN_OR_RETURN(const QuantDescription description, LoadDescription(artifact_dir));
  ASSAY_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(artifact_dir));
  std::vector<TensorToWrite> tensors;
  std::set<std::string> decoded;  // the names under which packed tensors stand
  for (const LinearInfo& linear : QuantizableLinears(config)) {
    const auto spec = description.linears.find(linear.name);
    if (spec == description.linears.end()) continue;
    ASSAY_ASSIGN_OR_RETURN(const std::vector<float> weight,
                           DecodeLinearWeight(*checkpoint, linear.name, spec->second,
                                              linear.out_features, linear.in_features));
    TensorToWrite tensor = {.name = linear.name + ".weight",
                            .dtype = DType::kBF16,
                            .shape = {linear.out_features, linear.in_features}};
    for (const float value : weight) {
      const uint32_t bits = std::bit_cast<uint32_t>(value);
      const auto half = static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
      tensor.bytes.append(reinterpret_cast<const char*>(&half), sizeof(half));
    }
    tensors.push_back(std::move(tensor));
    for (const char* part : {".qweight", ".scale", ".zero"}) decoded.insert(linear.name + part);
  }
  for (const std::string& name : checkpoint->names()) {
    if (decoded.contains(name)) continue;
    ASSAY_ASSIGN_OR_RETURN(const TensorView view, checkpoint->Find(name));
    tensors.push_back(
        {.name = name, .dtype = view.dtype, .shape = view.shape, .bytes = {}, .view = view.bytes});
  }
  const std::string model_dir = directory + "/decoded";
  std::filesystem::create_directory(model_dir);
  std::filesystem::copy_file(artifact_dir + "/config.json", model_dir + "/config.json");
  ASSAY_RETURN_IF_ERROR(WriteSafetensors(model_dir + "/model.safetensors", tensors));
  return model_dir;
}

std::vector<ReferenceSequence> ReadReference(const QuantizedCell& cell) {
  std::vector<ReferenceSequence> sequences;
  for (const auto& record : ReadJsonLines(
           SourcePath("tests/golden/reference/" + cell.model + "." + cell.reference + ".jsonl"))) {
    sequences.push_back({record.at("ids").get<std::vector<int32_t>>(),
                         record.at("target_logprobs").get<std::vector<double>>()});
  }
  return sequences;
}

std::vector<double> TargetLogprobs(const std::vector<float>& logits,
                                   const std::vector<int32_t>& ids) {
  const size_t vocab = logits.size() / ids.size();
  std::vector<double> logprobs;
  for (size_t t = 0; t + 1 < ids.size(); ++t) {
    const float* row = logits.data() + t * vocab;
    const double highest = *std::max_element(row, row + vocab);
    double sum = 0;
    for (size_t v = 0; v < vocab; ++v) sum += std::exp(row[v] - highest);
    logprobs.push_back(row[ids[t + 1]] - highest - std::log(sum));
  }
  return logprobs;
}

}  // namespace assay::engine::testing
