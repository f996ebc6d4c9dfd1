#include "engine/tokenizer/chat_template.h"

#include "base/file.h"
#include "base/hash.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/tokenizer/test_model.h"

namespace assay::engine {
namespace {

using Json = nlohmann::ordered_json;
using testing::IsError;
using testing::kNoShared;
using testing::SharedPath;

std::vector<ChatMessage> Messages(const Json& conversation) {
  std::vector<ChatMessage> messages;
  for (const Json& message : conversation) {
    messages.push_back({message["role"], message["content"]});
  }
  return messages;
}

// Our own templates in the styles of ChatML, Llama 3 and DeepSeek-R1.
TEST(ChatTemplateTest, OwnTemplatesRenderAsJinja2Does) {
  const Json data = ReadTestData("chat_cases.json");
  for (const Json& test : data["own"]) {
    ASSERT_OK_AND_ASSIGN(
        const auto chat_template,
        ChatTemplate::Parse(test["template"], test["bos_token"], test["eos_token"]));
    size_t i = 0;
    for (const Json& conversation : data["conversations"]) {
      for (const bool add_generation_prompt : {false, true}) {
        ASSERT_OK_AND_ASSIGN(const std::string text,
                             chat_template->Render(Messages(conversation), add_generation_prompt));
        EXPECT_EQ(text, test["expected"][i++].get<std::string>()) << test["name"];
      }
    }
  }
}

// The templates of the real configurations, by the hash of what jinja2 renders.
TEST(ChatTemplateTest, RealTemplatesRenderAsJinja2Does) {
  const Json data = ReadTestData("chat_cases.json");
  for (const Json& test : data["shared"]) {
    const std::string folder = SharedPath(test["folder"]);
    if (folder.empty()) GTEST_SKIP() << kNoShared;
    ASSERT_OK_AND_ASSIGN(const auto chat_template, ChatTemplate::Load(folder));
    size_t i = 0;
    for (const Json& conversation : data["conversations"]) {
      for (const bool add_generation_prompt : {false, true}) {
        ASSERT_OK_AND_ASSIGN(const std::string text,
                             chat_template->Render(Messages(conversation), add_generation_prompt));
        EXPECT_EQ(Sha256Hex(text), test["expected_sha256"][i++].get<std::string>())
            << test["folder"] << ":\n"
            << text;
      }
    }
  }
}

// chat_templates.json: templates of R1, R1-Distill and QwQ with what they must give.
TEST(ChatTemplateTest, PublishedCasesAreExact) {
  const std::string path = SharedPath("data/model_configs/chat_templates.json");
  if (path.empty()) GTEST_SKIP() << kNoShared;
  ASSERT_OK_AND_ASSIGN(const std::string content, ReadFile(path));
  const Json models = Json::parse(content);
  int num_cases = 0;
  for (const auto& [name, model] : models.items()) {
    ASSERT_OK_AND_ASSIGN(
        const auto chat_template,
        ChatTemplate::Parse(model["template"], model["special_tokens"]["bos_token"],
                            model["special_tokens"]["eos_token"]));
    for (const Json& test : model["cases"]) {
      // Tool calls and separate reasoning are no part of a ChatMessage.
      bool is_plain = !test.contains("tools");
      for (const Json& message : test["messages"]) is_plain &= message.size() == 2;
      if (!is_plain) continue;
      ASSERT_OK_AND_ASSIGN(const std::string text,
                           chat_template->Render(Messages(test["messages"]),
                                                 test["add_generation_prompt"].get<bool>()));
      EXPECT_EQ(text, test["expected"].get<std::string>()) << name << ": " << test["description"];
      ++num_cases;
    }
  }
  EXPECT_GE(num_cases, 25);
}

// The prompt of the study.
TEST(ChatTemplateTest, DistillPromptIsThatOfTheStudy) {
  const std::string folder = SharedPath("data/model_configs/DeepSeek-R1-Distill");
  if (folder.empty()) GTEST_SKIP() << kNoShared;
  ASSERT_OK_AND_ASSIGN(const auto chat_template, ChatTemplate::Load(folder));
  ASSERT_OK_AND_ASSIGN(const std::string text, chat_template->Render({{"user", " 1+1? "}}, true));
  EXPECT_EQ(text, "<｜begin▁of▁sentence｜><｜User｜> 1+1? <｜Assistant｜><think>\n");
}

std::string Config(const Json& chat_template) {
  return Json({{"bos_token", "<s>"}, {"chat_template", chat_template}}).dump();
}

TEST(ChatTemplateLoadTest, TheDefaultOfSeveralIsTaken) {
  const ModelFolder folder("{}",
                           Config({{{"name", "tools"}, {"template", "no"}},
                                   {{"name", "default"}, {"template", "{{ bos_token }}yes"}}}));
  ASSERT_OK_AND_ASSIGN(const auto chat_template, ChatTemplate::Load(folder.path()));
  EXPECT_EQ(*chat_template->Render({}, false), "<s>yes");
}

TEST(ChatTemplateLoadTest, AFileOfItsOwnWins) {
  const ModelFolder folder("{}", Config("no"));
  folder.Write("chat_template.jinja", "{{ bos_token }}{{ messages[0].content }}\n");
  ASSERT_OK_AND_ASSIGN(const auto chat_template, ChatTemplate::Load(folder.path()));
  EXPECT_EQ(*chat_template->Render({{"user", "hi"}}, false), "<s>hi");
}

TEST(ChatTemplateLoadTest, NoTemplateSaysWhatToDo) {
  EXPECT_THAT(ChatTemplate::Load(ModelFolder("{}").path()),
              IsError(absl::StatusCode::kNotFound, "add a chat_template.jinja"));
  EXPECT_THAT(ChatTemplate::Load(ModelFolder("{}", "{}").path()),
              IsError(absl::StatusCode::kNotFound, "add a chat_template.jinja"));
}

TEST(ChatTemplateLoadTest, AMalformedTemplateNamesFileAndPlace) {
  const ModelFolder folder("{}", Config("a\n{% if %}"));
  EXPECT_THAT(ChatTemplate::Load(folder.path()),
              IsError(absl::StatusCode::kInvalidArgument,
                      "tokenizer_config.json: chat_template: chat template: line 2, column 7"));
}

TEST(ChatTemplateTest, WhatATemplateRaisesReachesTheCaller) {
  ASSERT_OK_AND_ASSIGN(const auto chat_template,
                       ChatTemplate::Parse("{{ raise_exception('only users') }}", "", ""));
  EXPECT_THAT(chat_template->Render({{"system", "x"}}, true),
              IsError(absl::StatusCode::kInvalidArgument, "only users"));
}

// A prompt is a function of its messages: there is no clock.
// Found by fuzzing: stripping such a text looked up a class for what is no character.
TEST(ChatTemplateTest, AMessageThatIsNotUtf8IsRefused) {
  const auto chat = ChatTemplate::Parse("{{ messages[1].content | trim }}", "", "");
  ASSERT_OK(chat);
  const auto text = (*chat)->Render({{"system", "so"}, {"user", "x\xFF\xBF\xBF\xBF"}}, true);
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(text.status().message(), "message 2: its content is not UTF-8 (byte 0xff at offset 1)");
}

TEST(ChatTemplateTest, TheDateIsNotDefined) {
  ASSERT_OK_AND_ASSIGN(
      const auto chat_template,
      ChatTemplate::Parse("{{ strftime_now is defined }}{{ bos_token is defined }}", "", ""));
  EXPECT_EQ(*chat_template->Render({}, true), "FalseFalse");
}

}  // namespace
}  // namespace assay::engine
