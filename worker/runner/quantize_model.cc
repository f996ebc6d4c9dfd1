#include "worker/runner/quantize_model.h"

#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "base/hash.h"
#include "base/status.h"
#include "engine/runtime/engine.h"
#include "worker/runner/model_text.h"
#include "worker/runner/provenance.h"

namespace assay::worker {
namespace {

using nlohmann::json;

absl::StatusOr<std::string> StringOr(const json& record, const char* key, const char* other_key) {
  for (const char* name : {key, other_key}) {
    const auto field = record.find(name);
    if (field == record.end()) continue;
    if (!field->is_string()) {
      return InvalidArgument("\"{}\" must be a string, not {}", name, field->type_name());
    }
    return field->get<std::string>();
  }
  return std::string();
}

absl::StatusOr<engine::CalibrationText> ParseRecord(const std::string& line) {
  const json record = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!record.is_object()) return InvalidArgument("not a JSON object");
  engine::CalibrationText document;
  ASSAY_ASSIGN_OR_RETURN(document.question, StringOr(record, "question", "question"));
  ASSAY_ASSIGN_OR_RETURN(document.text, StringOr(record, "response", "text"));
  if (document.text.empty()) {
    return InvalidArgument("a record needs \"response\" (with \"question\") or \"text\"");
  }
  return document;
}

absl::StatusOr<std::vector<std::vector<int32_t>>> CalibrationIds(const QuantizeArguments& arguments,
                                                                 const ModelText& text,
                                                                 int64_t max_tokens) {
  std::vector<std::vector<int32_t>> documents;
  std::istringstream lines(arguments.calibration_jsonl);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string place = fmt::format("{}:{}", arguments.calibration_name, number);
    absl::StatusOr<engine::CalibrationText> record = ParseRecord(line);
    if (!record.ok()) return Annotate(record.status(), place);
    absl::StatusOr<std::vector<int32_t>> ids = text.Document(record->question, record->text);
    if (!ids.ok()) return Annotate(ids.status(), place);
    if (std::ssize(*ids) > max_tokens) ids->resize(static_cast<size_t>(max_tokens));
    documents.push_back(*std::move(ids));
  }
  return documents;
}

// The calibration ids and the unquantized model that runs over them.
absl::Status PrepareCalibration(const QuantizeArguments& arguments,
                                std::unique_ptr<engine::Engine>* engine,
                                engine::QuantizeRequest* request) {
  if (arguments.calibration_jsonl.empty()) {
    return InvalidArgument("method '{}' needs calibration texts: give a calibration set",
                           request->method.method);
  }
  ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<ModelText> text,
                         ModelText::Load(arguments.model_dir));
  ASSAY_ASSIGN_OR_RETURN(
      *engine, engine::Engine::Load(arguments.model_dir,
                                    {.num_threads = arguments.num_threads, .max_num_seqs = 1}));
  ASSAY_ASSIGN_OR_RETURN(request->calibration_ids,
                         CalibrationIds(arguments, *text, (*engine)->max_model_len()));
  if (request->calibration_ids.empty()) {
    return InvalidArgument("{}: holds no records", arguments.calibration_name);
  }
  request->forward = [raw = engine->get()](const std::vector<int32_t>& ids,
                                           engine::ForwardObserver* observer) {
    return raw->Forward(ids, observer).status();
  };
  request->provenance["calibration_set"] = arguments.calibration_name;
  request->provenance["calibration_sha256"] = Sha256Hex(arguments.calibration_jsonl);
  return absl::OkStatus();
}

}  // namespace

engine::MethodSpec ToMethodSpec(const v1::QuantMethod& method) {
  engine::MethodSpec spec;
  spec.method = method.method();
  spec.bits = method.bits();
  spec.group_size = method.group_size();
  spec.symmetric = method.symmetric();
  spec.pre_bias = method.pre_bias();
  spec.virtual_shards = method.virtual_shards() > 0 ? method.virtual_shards() : 1;
  spec.parameters = {method.parameters().begin(), method.parameters().end()};
  return spec;
}

absl::Status QuantizeModelFolder(const QuantizeArguments& arguments) {
  engine::QuantizeRequest request;
  ASSAY_ASSIGN_OR_RETURN(request.method, engine::ResolveMethod(arguments.method));
  request.model_dir = arguments.model_dir;
  request.output_dir = arguments.output_dir;
  request.provenance = BuildProvenance();
  if (!arguments.artifact_key.empty()) request.provenance["artifact_key"] = arguments.artifact_key;
  std::unique_ptr<engine::Engine> engine;
  if (engine::NeedsCalibration(request.method)) {
    ASSAY_RETURN_IF_ERROR(PrepareCalibration(arguments, &engine, &request));
  }
  return engine::Quantize(request);
}

}  // namespace assay::worker
