// The engine by token ids, for scripts that compare it with other implementations:
//
//   engine_probe MODEL_DIR [--device D] [--round-to-bf16] [--max-num-seqs N] [--max-model-len N]
//                [--prefill-chunk N]
//
// Standard input, JSON lines: {"full_ids": [...]} asks for the log-probability of each next token;
// {"prompt_ids": [...], "max_new_tokens": N} for a greedy continuation, which ends at one of
// "stop_ids". A line may ask for both. Standard output, a line for each: {"target_logprobs",
// "greedy_ids"}. Continuations run together, so that they are decoded in a batch.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/status.h"
#include "engine/runtime/engine.h"

namespace assay::engine {
namespace {

using nlohmann::json;

struct Arguments {
  std::string model_dir;
  EngineOptions options;
};

double LogProbability(std::span<const float> logits, int32_t target) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - highest);
  return logits[static_cast<size_t>(target)] - highest - std::log(sum);
}

absl::StatusOr<std::vector<double>> TargetLogprobs(Engine& engine,
                                                   const std::vector<int32_t>& ids) {
  ASSAY_ASSIGN_OR_RETURN(const std::vector<float> logits, engine.Forward(ids, nullptr));
  const auto vocab_size = static_cast<size_t>(engine.config().vocab_size);
  std::vector<double> logprobs;
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    logprobs.push_back(
        LogProbability(std::span(logits).subspan(i * vocab_size, vocab_size), ids[i + 1]));
  }
  return logprobs;
}

absl::Status Generate(Engine& engine, const std::vector<json>& records, std::vector<json>* out) {
  for (size_t i = 0; i < records.size(); ++i) {
    if (!records[i].contains("prompt_ids")) continue;
    GenerationRequest request;
    request.id = static_cast<int64_t>(i);
    request.prompt_ids = records[i].at("prompt_ids").get<std::vector<int32_t>>();
    request.max_new_tokens = records[i].at("max_new_tokens").get<int64_t>();
    request.stop_ids = records[i].value("stop_ids", std::vector<int32_t>());
    engine.Submit(std::move(request));
  }
  while (!engine.idle()) {
    ASSAY_ASSIGN_OR_RETURN(const std::vector<GenerationResult> results, engine.Step());
    for (const GenerationResult& result : results) {
      if (!result.error.empty()) return InvalidArgument("line {}: {}", result.id + 1, result.error);
      (*out)[static_cast<size_t>(result.id)]["greedy_ids"] = result.output_ids;
    }
  }
  return absl::OkStatus();
}

absl::Status Run(const Arguments& arguments) {
  std::vector<json> records;
  EngineOptions options = arguments.options;
  for (std::string line; std::getline(std::cin, line);) {
    records.push_back(json::parse(line));
    if (!records.back().contains("full_ids")) continue;
    const auto num_tokens = static_cast<int64_t>(records.back().at("full_ids").size());
    options.max_forward_len = std::max(options.max_forward_len, num_tokens);
  }
  ASSAY_ASSIGN_OR_RETURN(const auto engine, Engine::Load(arguments.model_dir, options));
  std::vector<json> out(records.size(), json::object());
  ASSAY_RETURN_IF_ERROR(Generate(*engine, records, &out));
  for (size_t i = 0; i < records.size(); ++i) {
    if (!records[i].contains("full_ids")) continue;
    ASSAY_ASSIGN_OR_RETURN(
        out[i]["target_logprobs"],
        TargetLogprobs(*engine, records[i].at("full_ids").get<std::vector<int32_t>>()));
  }
  for (const json& line : out) std::cout << line.dump() << "\n";
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Arguments arguments;
  EngineOptions& options = arguments.options;
  CLI::App app("The engine by token ids: JSON lines in, JSON lines out.");
  app.add_option("MODEL_DIR", arguments.model_dir, "model or artifact folder")->required();
  app.add_option("--device", options.device, "cpu, cuda or cuda:N")->capture_default_str();
  app.add_flag("--round-to-bf16", options.round_activations_to_bf16,
               "cpu: activations are rounded as a GPU stores them");
  app.add_option("--max-num-seqs", options.max_num_seqs, "sequences of a step")
      ->capture_default_str();
  app.add_option("--max-model-len", options.max_model_len, "0 takes the model's limit");
  app.add_option("--prefill-chunk", options.prefill_chunk, "most prompt tokens of a step");
  app.add_option("--threads", options.num_threads, "cpu")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  InitLogging("engine_probe", "error");
  try {
    const absl::Status status = Run(arguments);
    if (status.ok()) return 0;
    std::cerr << "engine_probe: " << status << "\n";
  } catch (const json::exception& error) {
    std::cerr << "engine_probe: standard input: " << error.what() << "\n";
  }
  return 1;
}

}  // namespace
}  // namespace assay::engine

int main(int argc, char** argv) { return assay::engine::Main(argc, argv); }
