#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>
#include <vector>

#include "base/exit_codes.h"
#include "base/status.h"
#include "engine/runtime/engine.h"
#include "worker/runner/model_text.h"
#include "worker/runner/verb_errors.h"
#include "worker/runner/verbs.h"

namespace assay::worker {
namespace {

using nlohmann::json;

const char* ToString(engine::FinishReason reason) {
  switch (reason) {
    case engine::FinishReason::kStop:
      return "stop";
    case engine::FinishReason::kLength:
      return "length";
    case engine::FinishReason::kContext:
      return "context";
    case engine::FinishReason::kRejected:
      return "rejected";
  }
  return "";
}

// Writes ids as text while they come, never half a character.
class TextStream {
 public:
  TextStream(const ModelText* text, std::ostream* out)
      : text_(text), detokenizer_(&text->tokenizer(), /*skip_special_tokens=*/false), out_(out) {}

  // `ids` from the start; what is new of them is written.
  void Show(const std::vector<int32_t>& ids) {
    for (; num_shown_ < ids.size(); ++num_shown_) {
      const int32_t id = ids[num_shown_];
      if (text_->IsShown(id)) *out_ << detokenizer_.Add(id);
    }
    out_->flush();
  }

  void Finish() {
    *out_ << detokenizer_.Finish() << "\n";
    out_->flush();
  }

 private:
  const ModelText* const text_;
  engine::IncrementalDetokenizer detokenizer_;
  std::ostream* const out_;
  size_t num_shown_ = 0;
};

json ToJson(const engine::GenerationResult& result, const ModelText& text, int64_t prompt_tokens) {
  return {{"text", text.DecodeAnswer(result.output_ids)},
          {"ids", result.output_ids},
          {"finish_reason", ToString(result.finish_reason)},
          {"prompt_tokens", prompt_tokens},
          {"completion_tokens", result.output_ids.size()},
          {"thinking_tokens", text.CountThinkingTokens(result.output_ids, kEndOfThinking)},
          {"ttft_ms", absl::ToDoubleMilliseconds(result.ttft)},
          {"e2e_latency_ms", absl::ToDoubleMilliseconds(result.e2e)}};
}

absl::Status GenerateOrError(const GenerateArguments& arguments, std::ostream& out) {
  ASSAY_RETURN_IF_ERROR(CheckModelFolder(arguments.model_dir, "config.json"));
  ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<ModelText> text,
                         ModelText::Load(arguments.model_dir));
  ASSAY_ASSIGN_OR_RETURN(
      const std::unique_ptr<engine::Engine> engine,
      engine::Engine::Load(arguments.model_dir, {.device = arguments.device,
                                                 .num_threads = arguments.num_threads,
                                                 .max_num_seqs = 1,
                                                 .max_model_len = arguments.max_model_len}));
  engine::GenerationRequest request;
  request.id = 1;
  if (arguments.raw) {
    request.prompt_ids = text->Encode(arguments.prompt, /*add_special_tokens=*/true);
  } else {
    ASSAY_ASSIGN_OR_RETURN(request.prompt_ids,
                           text->ChatPrompt(arguments.prompt, arguments.system));
  }
  request.max_new_tokens = arguments.max_tokens;
  request.stop_ids = engine->config().eos_token_ids;
  request.sampling = {.temperature = static_cast<float>(arguments.temperature),
                      .top_p = static_cast<float>(arguments.top_p),
                      .top_k = arguments.top_k,
                      .seed = arguments.seed};
  const int64_t prompt_tokens = std::ssize(request.prompt_ids);
  engine->Submit(std::move(request));

  TextStream stream(text.get(), &out);
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(std::vector<engine::GenerationResult> results, engine->Step());
    if (results.empty()) {
      if (!arguments.json) stream.Show(engine->OutputIds(1));
      continue;
    }
    const engine::GenerationResult& result = results.front();
    if (result.finish_reason == engine::FinishReason::kRejected) {
      return InvalidArgument("the prompt of {} tokens cannot run: {}", prompt_tokens, result.error);
    }
    if (arguments.json) {
      out << ToJson(result, *text, prompt_tokens).dump() << "\n";
    } else {
      stream.Show(result.output_ids);
      stream.Finish();
    }
    return absl::OkStatus();
  }
}

}  // namespace

int Generate(const GenerateArguments& arguments, std::ostream& out) {
  const absl::Status status = GenerateOrError(arguments, out);
  return status.ok() ? kExitOk : FailVerb(status);
}

}  // namespace assay::worker
