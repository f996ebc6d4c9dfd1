#include "engine/tokenizer/chat_template.h"

#include "base/file.h"
#include "base/status.h"
#include "engine/tokenizer/jinja_eval.h"
#include "engine/tokenizer/jinja_parser.h"
#include "engine/tokenizer/tokenizer_definition.h"
#include "engine/tokenizer/unicode.h"

namespace assay::engine {
namespace {

constexpr int64_t kMaxTemplateBytes = 4 << 20;

// A template's strings are characters: all that works on them relies on it.
absl::Status CheckUtf8(size_t message, const char* field, const std::string& text) {
  const size_t valid = ValidUtf8Prefix(text);
  if (valid == text.size()) return absl::OkStatus();
  return InvalidArgument("message {}: its {} is not UTF-8 (byte {:#04x} at offset {})", message + 1,
                         field, static_cast<uint8_t>(text[valid]), valid);
}

class JinjaChatTemplate final : public ChatTemplate {
 public:
  JinjaChatTemplate(std::vector<jinja::Stmt> statements, std::string bos_token,
                    std::string eos_token)
      : statements_(std::move(statements)),
        bos_token_(std::move(bos_token)),
        eos_token_(std::move(eos_token)) {}

  absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages,
                                     bool add_generation_prompt) const override {
    using jinja::Value;
    jinja::List list;
    for (size_t i = 0; i < messages.size(); ++i) {
      const ChatMessage& message = messages[i];
      ASSAY_RETURN_IF_ERROR(CheckUtf8(i, "role", message.role));
      ASSAY_RETURN_IF_ERROR(CheckUtf8(i, "content", message.content));
      list.push_back(Value::Of(
          jinja::Dict{{"role", Value::Of(message.role)}, {"content", Value::Of(message.content)}}));
    }
    // What transformers defines for a conversation without tools and documents. There is no
    // strftime_now: a prompt is a function of its messages, and templates have a date to fall back
    // on.
    jinja::Dict variables = {{"messages", Value::Of(std::move(list))},
                             {"tools", Value::OfNone()},
                             {"documents", Value::OfNone()},
                             {"add_generation_prompt", Value::Of(add_generation_prompt)}};
    if (!bos_token_.empty()) variables.emplace_back("bos_token", Value::Of(bos_token_));
    if (!eos_token_.empty()) variables.emplace_back("eos_token", Value::Of(eos_token_));
    absl::StatusOr<std::string> text = jinja::Render(statements_, std::move(variables));
    if (!text.ok()) return Annotate(text.status(), "chat template");
    return text;
  }

 private:
  const std::vector<jinja::Stmt> statements_;
  const std::string bos_token_;
  const std::string eos_token_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Parse(const std::string& source,
                                                                  const std::string& bos_token,
                                                                  const std::string& eos_token) {
  if (static_cast<int64_t>(source.size()) > kMaxTemplateBytes) {
    return InvalidArgument("chat template: {} bytes; the limit is {}", source.size(),
                           kMaxTemplateBytes);
  }
  absl::StatusOr<std::vector<jinja::Stmt>> statements = jinja::ParseTemplate(source);
  if (!statements.ok()) return Annotate(statements.status(), "chat template");
  return std::make_unique<JinjaChatTemplate>(*std::move(statements), bos_token, eos_token);
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Load(const std::string& model_dir) {
  const absl::StatusOr<TokenizerConfig> found = LoadTokenizerConfig(model_dir);
  if (!found.ok() && !absl::IsNotFound(found.status())) return found.status();
  TokenizerConfig config;
  if (found.ok()) config = *found;

  // A file of its own wins, as in transformers.
  std::string path = model_dir + "/chat_template.jinja";
  absl::StatusOr<std::string> source = ReadFile(path, kMaxTemplateBytes);
  if (!source.ok() && !absl::IsNotFound(source.status())) return source.status();
  if (!source.ok()) {
    path = config.path + ": chat_template";
    if (!config.chat_template.has_value()) {
      return NotFound(
          "{}: no chat template; add a chat_template.jinja, or \"chat_template\" to "
          "tokenizer_config.json",
          model_dir);
    }
    source = *config.chat_template;
  }
  absl::StatusOr<std::unique_ptr<ChatTemplate>> parsed =
      Parse(*source, config.bos_token, config.eos_token);
  if (!parsed.ok()) return Annotate(parsed.status(), path);
  return parsed;
}

}  // namespace assay::engine
