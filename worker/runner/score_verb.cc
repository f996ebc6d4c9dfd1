#include <algorithm>
#include <cmath>
#include <istream>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "base/exit_codes.h"
#include "base/status.h"
#include "engine/model/config.h"
#include "engine/runtime/engine.h"
#include "worker/runner/verb_errors.h"
#include "worker/runner/verbs.h"

namespace assay::worker {
namespace {

using nlohmann::json;

absl::StatusOr<std::vector<int32_t>> ParseIds(const std::string& line, int64_t vocab_size,
                                              int64_t max_model_len) {
  const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return InvalidArgument("not a JSON object");
  const auto field = object.find("ids");
  if (field == object.end()) return InvalidArgument("the field \"ids\" is missing");
  if (!field->is_array() || field->empty()) {
    return InvalidArgument("\"ids\" must be an array of at least one token id");
  }
  if (static_cast<int64_t>(field->size()) > max_model_len) {
    return InvalidArgument("{} ids, more than the model's limit of {}", field->size(),
                           max_model_len);
  }
  std::vector<int32_t> ids;
  for (const json& element : *field) {
    if (!element.is_number_integer()) return InvalidArgument("\"ids\" holds {}", element.dump());
    const auto id = element.get<int64_t>();
    if (id < 0 || id >= vocab_size) {
      return InvalidArgument("id {} is outside the vocabulary of {}", id, vocab_size);
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

// log softmax of one row at `target`, in double: the sum runs over a whole vocabulary.
double LogProbability(std::span<const float> logits, int32_t target) {
  double maximum = -INFINITY;
  for (float logit : logits) maximum = std::max(maximum, static_cast<double>(logit));
  double sum = 0;
  for (float logit : logits) sum += std::exp(static_cast<double>(logit) - maximum);
  return static_cast<double>(logits[static_cast<size_t>(target)]) - maximum - std::log(sum);
}

absl::StatusOr<std::vector<double>> TargetLogProbabilities(engine::Engine& engine,
                                                           const std::vector<int32_t>& ids) {
  ASSAY_ASSIGN_OR_RETURN(const std::vector<float> logits, engine.Forward(ids, nullptr));
  const auto vocab_size = static_cast<size_t>(engine.config().vocab_size);
  std::vector<double> log_probabilities;
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    const auto row = std::span<const float>(logits).subspan(i * vocab_size, vocab_size);
    log_probabilities.push_back(LogProbability(row, ids[i + 1]));
  }
  return log_probabilities;
}

}  // namespace

int Score(const std::string& model_dir, const std::string& device, int num_threads,
          std::istream& in, std::ostream& out) {
  const absl::Status folder = CheckModelFolder(model_dir, "config.json");
  if (!folder.ok()) return FailVerb(folder);
  const absl::StatusOr<engine::ModelConfig> config = engine::LoadModelConfig(model_dir);
  if (!config.ok()) return FailVerb(config.status());
  // All texts before the model: what they need is planned, and a bad one costs no loading.
  std::vector<std::vector<int32_t>> texts;
  int64_t longest = 1;
  std::string line;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    absl::StatusOr<std::vector<int32_t>> ids =
        ParseIds(line, config->vocab_size, config->max_position_embeddings);
    if (!ids.ok()) return FailLine(number, Message(ids.status()));
    longest = std::max(longest, static_cast<int64_t>(ids->size()));
    texts.push_back(*std::move(ids));
  }
  const absl::StatusOr<std::unique_ptr<engine::Engine>> engine =
      engine::Engine::Load(model_dir, {.device = device,
                                       .num_threads = num_threads,
                                       .max_num_seqs = 1,
                                       .max_model_len = longest,
                                       .max_forward_len = longest});
  if (!engine.ok()) return FailVerb(engine.status());
  for (const std::vector<int32_t>& ids : texts) {
    const absl::StatusOr<std::vector<double>> scores = TargetLogProbabilities(**engine, ids);
    if (!scores.ok()) return FailVerb(scores.status());
    out << json{{"target_logprobs", *scores}}.dump() << "\n";
  }
  out.flush();
  return kExitOk;
}

}  // namespace assay::worker
