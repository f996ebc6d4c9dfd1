// Errors: what the whole repository uses to say that something went wrong.
//
// Anything the world can cause (a bad file, a lost peer, a full disk) is an absl::Status; anything
// only a bug can cause is ASSAY_CHECK. A message names the thing, the value and the remedy or
// limit. The codes are gRPC's, so an error crosses the wire unchanged.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

namespace assay {

// One shorthand per code that we use, with fmt's compile-checked format string:
//   return InvalidArgument("{}: group_size {} does not divide in_features {}", name, g, k);
#define ASSAY_DEFINE_ERROR(Name, Code)                                           \
  template <typename... Args>                                                    \
  absl::Status Name(fmt::format_string<Args...> format, Args&&... args) {        \
    return absl::Status(Code, fmt::format(format, std::forward<Args>(args)...)); \
  }
ASSAY_DEFINE_ERROR(InvalidArgument, absl::StatusCode::kInvalidArgument)
ASSAY_DEFINE_ERROR(NotFound, absl::StatusCode::kNotFound)
ASSAY_DEFINE_ERROR(AlreadyExists, absl::StatusCode::kAlreadyExists)
ASSAY_DEFINE_ERROR(FailedPrecondition, absl::StatusCode::kFailedPrecondition)
ASSAY_DEFINE_ERROR(ResourceExhausted, absl::StatusCode::kResourceExhausted)
ASSAY_DEFINE_ERROR(Unavailable, absl::StatusCode::kUnavailable)
ASSAY_DEFINE_ERROR(DataLoss, absl::StatusCode::kDataLoss)
ASSAY_DEFINE_ERROR(Unimplemented, absl::StatusCode::kUnimplemented)
ASSAY_DEFINE_ERROR(DeadlineExceeded, absl::StatusCode::kDeadlineExceeded)
ASSAY_DEFINE_ERROR(PermissionDenied, absl::StatusCode::kPermissionDenied)
ASSAY_DEFINE_ERROR(Cancelled, absl::StatusCode::kCancelled)
ASSAY_DEFINE_ERROR(Internal, absl::StatusCode::kInternal)
#undef ASSAY_DEFINE_ERROR

// The message as a std::string (Debian's absl::string_view is not std::string_view).
inline std::string Message(const absl::Status& status) { return std::string(status.message()); }

// The same error with "context: " before its message.
absl::Status Annotate(const absl::Status& status, std::string_view context);

// Prints `what` with file and line and aborts; called by ASSAY_CHECK.
[[noreturn]] void CheckFailed(const char* file, int line, const char* expression,
                              const std::string& what);

}  // namespace assay

#define ASSAY_CONCAT_INNER_(a, b) a##b
#define ASSAY_CONCAT_(a, b) ASSAY_CONCAT_INNER_(a, b)

#define ASSAY_RETURN_IF_ERROR(expression)          \
  do {                                             \
    absl::Status assay_status_ = (expression);     \
    if (!assay_status_.ok()) return assay_status_; \
  } while (false)

#define ASSAY_ASSIGN_OR_RETURN(declaration, expression) \
  ASSAY_ASSIGN_OR_RETURN_IMPL_(ASSAY_CONCAT_(assay_statusor_, __LINE__), declaration, expression)
#define ASSAY_ASSIGN_OR_RETURN_IMPL_(result, declaration, expression) \
  auto result = (expression);                                         \
  if (!result.ok()) return std::move(result).status();                \
  declaration = *std::move(result)

// ASSAY_CHECK(i < size) or ASSAY_CHECK(i < size, "i={} size={}", i, size).
#define ASSAY_CHECK(condition, ...)                                         \
  do {                                                                      \
    if (!(condition)) {                                                     \
      ::assay::CheckFailed(__FILE__, __LINE__, #condition,                  \
                           ::assay::internal_check::Describe(__VA_ARGS__)); \
    }                                                                       \
  } while (false)

namespace assay::internal_check {
inline std::string Describe() { return {}; }
template <typename... Args>
std::string Describe(fmt::format_string<Args...> format, Args&&... args) {
  return fmt::format(format, std::forward<Args>(args)...);
}
}  // namespace assay::internal_check
