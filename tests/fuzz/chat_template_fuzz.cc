// A chat template as a stranger wrote it. Input: a line of message text, then the Jinja source.
#include "base/status.h"
#include "engine/tokenizer/chat_template.h"
#include "tests/fuzz/fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using assay::engine::ChatMessage;
  const std::string_view input = assay::fuzz::AsText(data, size);
  const size_t end = input.find('\n');
  if (end == std::string_view::npos) return 0;
  const std::string text(input.substr(0, end));
  const auto chat =
      assay::engine::ChatTemplate::Parse(std::string(input.substr(end + 1)), "<s>", "</s>");
  if (!chat.ok()) return 0;
  const std::vector<ChatMessage> messages = {
      {"system", text}, {"user", text + " user"}, {"assistant", text}, {"user", ""}};
  const auto once = (*chat)->Render(messages, true);
  const auto again = (*chat)->Render(messages, true);
  ASSAY_CHECK(once.ok() == again.ok(), "a template renders now and then");
  ASSAY_CHECK(!once.ok() || *once == *again, "a template renders the same messages in two ways");
  (void)(*chat)->Render({}, false);
  return 0;
}
