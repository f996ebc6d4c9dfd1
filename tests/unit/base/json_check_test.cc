#include "base/json_check.h"

#include <string>

#include "tests/testing/status_matchers.h"

namespace assay {
namespace {

using testing::IsError;

TEST(JsonCheckTest, OrdinaryJsonPasses) {
  EXPECT_OK(CheckJson(R"({"a": [1, {"a": 2}], "b": {"a": null}})", "f"));
  EXPECT_OK(CheckJson("7", "f"));
}

TEST(JsonCheckTest, ANameThatComesTwiceIsRefusedAtAnyDepth) {
  EXPECT_THAT(CheckJson(R"([{"x": {"a": 1, "a": 2}}])", "f"),
              IsError(absl::StatusCode::kInvalidArgument, "f: the name 'a' comes twice"));
}

TEST(JsonCheckTest, NestingStopsAtTheLimit) {
  EXPECT_OK(CheckJson("[[[]]]", "f", 3));
  EXPECT_THAT(CheckJson("[[[[]]]]", "f", 3),
              IsError(absl::StatusCode::kInvalidArgument, "deeper than 3"));
  EXPECT_THAT(CheckJson(std::string(5'000'000, '['), "f"),
              IsError(absl::StatusCode::kInvalidArgument, "deeper"));
}

TEST(JsonCheckTest, WhatIsNoJsonSaysWhere) {
  EXPECT_THAT(CheckJson("", "f"), IsError(absl::StatusCode::kInvalidArgument, "f: not JSON"));
  EXPECT_THAT(CheckJson("{\"a\": 1} x", "f"),
              IsError(absl::StatusCode::kInvalidArgument, "byte 10"));
  EXPECT_THAT(CheckJson("\"\xff\"", "f"), IsError(absl::StatusCode::kInvalidArgument, "not JSON"));
}

}  // namespace
}  // namespace assay
