// GoogleTest for absl::Status, which Debian's abseil does not bring.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "base/status.h"

namespace assay::testing {

inline const absl::Status& GetStatus(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& GetStatus(const absl::StatusOr<T>& result) {
  return result.status();
}

MATCHER(IsOk, "is OK") {
  const absl::Status& status = GetStatus(arg);
  *result_listener << "whose status is " << status.ToString();
  return status.ok();
}

// The code, and a piece that the message must contain.
MATCHER_P2(IsError, code, piece,
           "fails with " + absl::StatusCodeToString(code) + " saying '" + std::string(piece) +
               "'") {
  const absl::Status& status = GetStatus(arg);
  *result_listener << "whose status is " << status.ToString();
  return status.code() == code && Message(status).find(piece) != std::string::npos;
}

}  // namespace assay::testing

#define EXPECT_OK(expression) EXPECT_THAT(expression, ::assay::testing::IsOk())
#define ASSERT_OK(expression) ASSERT_THAT(expression, ::assay::testing::IsOk())
#define ASSERT_OK_AND_ASSIGN(declaration, expression) \
  ASSERT_OK_AND_ASSIGN_IMPL_(ASSAY_CONCAT_(test_statusor_, __LINE__), declaration, expression)
#define ASSERT_OK_AND_ASSIGN_IMPL_(result, declaration, expression) \
  auto result = (expression);                                       \
  ASSERT_THAT(result, ::assay::testing::IsOk());                    \
  declaration = *std::move(result)
