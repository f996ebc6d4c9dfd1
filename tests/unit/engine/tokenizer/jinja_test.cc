// The template interpreter by itself: against jinja2 (testdata/jinja_cases.json), and its limits.
#include "engine/tokenizer/jinja_eval.h"
#include "engine/tokenizer/jinja_parser.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/tokenizer/test_model.h"

namespace assay::engine::jinja {
namespace {

using Json = nlohmann::ordered_json;
using testing::IsError;

Value FromJson(const Json& json) {
  if (json.is_null()) return Value::OfNone();
  if (json.is_boolean()) return Value::Of(json.get<bool>());
  if (json.is_number_integer()) return Value::Of(json.get<int64_t>());
  if (json.is_number()) return Value::Of(json.get<double>());
  if (json.is_string()) return Value::Of(json.get<std::string>());
  if (json.is_array()) {
    List list;
    for (const Json& item : json) list.push_back(FromJson(item));
    return Value::Of(std::move(list));
  }
  Dict dict;
  for (const auto& [key, value] : json.items()) dict.emplace_back(key, FromJson(value));
  return Value::Of(std::move(dict));
}

absl::StatusOr<std::string> RunTemplate(const std::string& source,
                                        const Json& variables = Json::object()) {
  ASSAY_ASSIGN_OR_RETURN(const std::vector<Stmt> statements, ParseTemplate(source));
  return Render(statements, *FromJson(variables).AsDict());
}

// 429 templates: white space, operators, filters, tests, methods, statements, and malformed ones.
TEST(JinjaTest, TemplatesPrintWhatJinja2PrintsAndFailWhereItFails) {
  const Json data = ReadTestData("jinja_cases.json");
  for (const Json& test : data["cases"]) {
    const absl::StatusOr<std::string> output =
        RunTemplate(test["template"].get<std::string>(), data["variables"]);
    if (test.contains("error")) {
      EXPECT_THAT(output, IsError(absl::StatusCode::kInvalidArgument, "line ")) << test["template"];
    } else {
      ASSERT_OK(output) << test["template"];
      EXPECT_EQ(*output, test["output"].get<std::string>()) << test["template"];
    }
  }
}

TEST(JinjaTest, ErrorsSayWhere) {
  EXPECT_THAT(
      RunTemplate("a\n  {{ 1 | nope }}"),
      IsError(absl::StatusCode::kInvalidArgument, "line 2, column 8: unknown filter 'nope'"));
  EXPECT_THAT(RunTemplate("日本{% foo %}"),
              IsError(absl::StatusCode::kInvalidArgument, "line 1, column 6: unknown tag 'foo'"));
  EXPECT_THAT(RunTemplate("{% if x %}\n\n"),
              IsError(absl::StatusCode::kInvalidArgument, "expected {% endif %}"));
  EXPECT_THAT(
      RunTemplate("{{ raise_exception('roles must alternate') }}"),
      IsError(absl::StatusCode::kInvalidArgument, "the template raised: roles must alternate"));
  EXPECT_THAT(RunTemplate("{{ message.content }}"),
              IsError(absl::StatusCode::kInvalidArgument, "'message', which is undefined"));
  EXPECT_THAT(RunTemplate("\xFF"), IsError(absl::StatusCode::kInvalidArgument, "not UTF-8"));
}

std::string Repeat(const std::string& piece, int times) {
  std::string text;
  for (int i = 0; i < times; ++i) text += piece;
  return text;
}

TEST(JinjaLimitsTest, WhatNestsTooDeeplyIsRefused) {
  EXPECT_FALSE(RunTemplate("{{ " + Repeat("(", 100'000) + "1" + Repeat(")", 100'000) + " }}").ok());
  EXPECT_FALSE(RunTemplate("{{ " + Repeat("[", 100'000)).ok());
  EXPECT_FALSE(RunTemplate("{{ " + Repeat("not ", 100'000) + "1 }}").ok());
  EXPECT_FALSE(RunTemplate("{{ " + Repeat("-", 100'000) + "1 }}").ok());
  EXPECT_FALSE(RunTemplate("{{ 1" + Repeat("+1", 100'000) + " }}").ok());
  EXPECT_FALSE(RunTemplate("{{ x" + Repeat(".y", 100'000) + " }}").ok());
  EXPECT_FALSE(RunTemplate("{{ x" + Repeat("|trim", 100'000) + " }}").ok());
  EXPECT_FALSE(RunTemplate("{{ 1" + Repeat(" if 1 else 1", 100'000) + " }}").ok());
  EXPECT_FALSE(RunTemplate(Repeat("{% if true %}", 100'000)).ok());
  EXPECT_FALSE(RunTemplate(Repeat("{% set x = [x] %}", 100'000)).ok());
}

TEST(JinjaLimitsTest, WhatRunsTooLongIsStopped) {
  EXPECT_THAT(
      RunTemplate(
          "{% for a in range(1000000) %}{% for b in range(1000000) %}{% endfor %}{% endfor %}"),
      IsError(absl::StatusCode::kInvalidArgument, "too"));
  EXPECT_THAT(RunTemplate("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
              IsError(absl::StatusCode::kInvalidArgument, "macros in macros"));
  EXPECT_THAT(RunTemplate("{{ range(10000000000) }}"),
              IsError(absl::StatusCode::kInvalidArgument, "the range is too long"));
}

TEST(JinjaLimitsTest, WhatGrowsTooLargeIsStopped) {
  EXPECT_THAT(RunTemplate("{{ 'x' * 1000000000 }}"),
              IsError(absl::StatusCode::kInvalidArgument, "too long"));
  EXPECT_FALSE(RunTemplate("{% set ns = namespace(x='xxxxxxxxxx') %}{% for i in range(100) %}"
                           "{% set ns.x = ns.x + ns.x %}{% endfor %}")
                   .ok());
  EXPECT_FALSE(RunTemplate("{% set ns = namespace(x=[1]) %}{% for i in range(100) %}"
                           "{% set ns.x = ns.x + ns.x %}{% endfor %}")
                   .ok());
  EXPECT_FALSE(RunTemplate("{% set ns = namespace(x='x') %}{% for i in range(60) %}"
                           "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}")
                   .ok());
}

// A namespace that holds itself would never be freed.
TEST(JinjaLimitsTest, ANamespaceCannotHoldItself) {
  EXPECT_THAT(RunTemplate("{% set ns = namespace() %}{% set ns.x = ns %}"),
              IsError(absl::StatusCode::kInvalidArgument, "namespace"));
  EXPECT_THAT(RunTemplate("{% set ns = namespace() %}{% set ns.x = [ns] %}"),
              IsError(absl::StatusCode::kInvalidArgument, "namespace"));
}

// Every prefix of a template with everything in it: an error or an output, never a crash.
TEST(JinjaTest, NoTruncationCrashes) {
  const std::string source =
      "{# c #}{%- set ns = namespace(a=1, b={'k': [1, 2.5, \"x\"]}) -%}\n"
      "{% macro m(a, b=none) %}{{ a ~ b }}{% endmacro %}{% for k, v in ns.b.items() if k %}"
      "{{ loop.index }}{% if v[0] is not none and v|length > 1 %}{{ m(v[::-1], b=k[:1]) | trim }}"
      "{% elif false %}{% break %}{% else %}x{% endif %}{% else %}y{% endfor %}"
      "{% set t %}z{% endset %}{% raw %}{{ }}{% endraw %}{{ -1 ** 2 if t == 'z' else \"\\u00e9\" "
      "}}";
  EXPECT_OK(RunTemplate(source));
  for (size_t size = 0; size < source.size(); ++size) {
    const absl::StatusOr<std::string> output = RunTemplate(source.substr(0, size));
    EXPECT_TRUE(output.ok() || absl::IsInvalidArgument(output.status())) << size;
  }
}

}  // namespace
}  // namespace assay::engine::jinja
