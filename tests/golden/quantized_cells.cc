#include "tests/golden/quantized_cells.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/status.h"
#include "engine/quant/quantize.h"
#include "engine/runtime/engine.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/tokenizer.h"
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
