// Chat templates: the Jinja text of tokenizer_config.json, run by a small interpreter of the part
// of Jinja that such templates use. Templates come from outside: depth, steps and output are
// bounded.
#pragma once

#include <absl/status/statusor.h>

#include <memory>
#include <string>
#include <vector>

namespace assay::engine {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

// Immutable once loaded; thread-safe.
class ChatTemplate {
 public:
  // `source` is Jinja; bos and eos are the variables bos_token and eos_token. INVALID_ARGUMENT
  // gives line and column of what the interpreter does not know.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Parse(const std::string& source,
                                                             const std::string& bos_token,
                                                             const std::string& eos_token);

  // From tokenizer_config.json (or chat_template.jinja) of a model folder. NOT_FOUND when the model
  // has no template: the remedy is in the message.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Load(const std::string& model_dir);

  virtual ~ChatTemplate() = default;

  // INVALID_ARGUMENT carries what the template raised (raise_exception), or names the message that
  // is not UTF-8.
  virtual absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages,
                                             bool add_generation_prompt) const = 0;
};

}  // namespace assay::engine
