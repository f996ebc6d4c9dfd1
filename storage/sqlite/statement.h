// A prepared statement, borrowed from its connection's cache:
//
//   ASSAY_ASSIGN_OR_RETURN(Statement statement, connection->Prepare(kFindModel));
//   statement.Bind(name, hash);
//   ASSAY_ASSIGN_OR_RETURN(const bool found, statement.Step());
//   if (found) Row(statement).Read(&model.id, &model.name);
//
// Bind and Read go by C++ type: integers and enums are INTEGER, double REAL, std::string TEXT,
// Blob BLOB, an empty optional NULL. Not thread-safe.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

struct sqlite3_stmt;

namespace assay::storage::sqlite {

class Connection;

// Bytes to be bound as a BLOB; borrowed until Bind returns.
struct Blob {
  std::string_view bytes;
};

// An id that is NULL in the table when it is 0 in the struct.
struct NullIfZero {
  int64_t value;
};

class Statement {
 public:
  ~Statement();  // resets it and gives it back to the cache
  Statement(Statement&& other) noexcept;
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  Statement& operator=(Statement&&) = delete;

  // Resets the statement and binds ?1, ?2, ... An error shows in the next Step or Run.
  template <typename... Args>
  Statement& Bind(const Args&... args) {
    Reset();
    int index = 0;
    (BindAny(++index, args), ...);
    return *this;
  }

  // True when there is a row to read; after false it is reset.
  absl::StatusOr<bool> Step();

  // Steps to the end, over rows if there are any.
  absl::Status Run();

  void Reset();

 private:
  friend class Connection;
  friend class Row;
  Statement(Connection* connection, sqlite3_stmt* handle)
      : connection_(connection), handle_(handle) {}

  template <typename T>
  void BindAny(int index, const T& value) {
    if constexpr (std::is_enum_v<T> || std::is_integral_v<T>) {
      BindInteger(index, static_cast<int64_t>(value));  // uint64_t keeps its bits
    } else if constexpr (std::is_floating_point_v<T>) {
      BindReal(index, value);
    } else if constexpr (std::is_same_v<T, NullIfZero>) {
      value.value == 0 ? BindNull(index) : BindInteger(index, value.value);
    } else if constexpr (std::is_same_v<T, Blob>) {
      BindBlob(index, value.bytes);
    } else {
      BindText(index, std::string_view(value));
    }
  }
  template <typename T>
  void BindAny(int index, const std::optional<T>& value) {
    if (value.has_value()) {
      BindAny(index, *value);
    } else {
      BindNull(index);
    }
  }
  void BindInteger(int index, int64_t value);
  void BindReal(int index, double value);
  void BindText(int index, std::string_view value);
  void BindBlob(int index, std::string_view value);
  void BindNull(int index);

  Connection* connection_;  // null once moved from
  sqlite3_stmt* handle_;
  int bind_error_ = 0;
};

// The current row of a statement, read from left to right. Valid until the next Step.
class Row {
 public:
  explicit Row(const Statement& statement) : handle_(statement.handle_) {}

  // Reads the next columns into what the pointers point at. NULL reads as zero or empty, or as an
  // empty optional.
  template <typename... Args>
  Row& Read(Args*... values) {
    (ReadOne(values), ...);
    return *this;
  }

 private:
  template <typename T>
  void ReadOne(T* value) {
    if constexpr (std::is_same_v<T, std::string>) {
      *value = ReadBytes();
    } else if constexpr (std::is_floating_point_v<T>) {
      *value = static_cast<T>(ReadReal());
    } else if constexpr (std::is_same_v<T, bool>) {
      *value = ReadInteger() != 0;
    } else {
      *value = static_cast<T>(ReadInteger());
    }
  }
  template <typename T>
  void ReadOne(std::optional<T>* value) {
    if (IsNull()) {
      value->reset();
      ++column_;
    } else {
      ReadOne(&value->emplace());
    }
  }
  bool IsNull() const;
  int64_t ReadInteger();
  double ReadReal();
  std::string ReadBytes();  // of TEXT or BLOB

  sqlite3_stmt* const handle_;
  int column_ = 0;
};

}  // namespace assay::storage::sqlite
