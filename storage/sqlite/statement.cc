#include "storage/sqlite/statement.h"

#include <sqlite3.h>

#include "base/status.h"
#include "storage/sqlite/connection.h"
#include "storage/sqlite/error.h"

namespace assay::storage::sqlite {

Statement::~Statement() {
  if (connection_ != nullptr) connection_->Return(handle_);
}

Statement::Statement(Statement&& other) noexcept
    : connection_(other.connection_), handle_(other.handle_), bind_error_(other.bind_error_) {
  other.connection_ = nullptr;
}

absl::StatusOr<bool> Statement::Step() {
  if (bind_error_ != SQLITE_OK) {
    return MakeError(connection_->handle(), bind_error_, connection_->path());
  }
  const int code = sqlite3_step(handle_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) {
    sqlite3_reset(handle_);
    return false;
  }
  absl::Status error = MakeError(connection_->handle(), code, connection_->path());
  sqlite3_reset(handle_);
  return error;
}

absl::Status Statement::Run() {
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, Step());
    if (!more) return absl::OkStatus();
  }
}

void Statement::Reset() {
  sqlite3_reset(handle_);
  bind_error_ = SQLITE_OK;
}

namespace {

void Keep(int code, int* error) {
  if (*error == SQLITE_OK) *error = code;
}

}  // namespace

void Statement::BindInteger(int index, int64_t value) {
  Keep(sqlite3_bind_int64(handle_, index, value), &bind_error_);
}
void Statement::BindReal(int index, double value) {
  Keep(sqlite3_bind_double(handle_, index, value), &bind_error_);
}
// An empty view may have a null pointer, which SQLite would take for NULL.
void Statement::BindText(int index, std::string_view value) {
  const char* data = value.empty() ? "" : value.data();
  Keep(sqlite3_bind_text64(handle_, index, data, value.size(), SQLITE_TRANSIENT, SQLITE_UTF8),
       &bind_error_);
}
void Statement::BindBlob(int index, std::string_view value) {
  const char* data = value.empty() ? "" : value.data();
  Keep(sqlite3_bind_blob64(handle_, index, data, value.size(), SQLITE_TRANSIENT), &bind_error_);
}
void Statement::BindNull(int index) { Keep(sqlite3_bind_null(handle_, index), &bind_error_); }

bool Row::IsNull() const { return sqlite3_column_type(handle_, column_) == SQLITE_NULL; }

int64_t Row::ReadInteger() { return sqlite3_column_int64(handle_, column_++); }

double Row::ReadReal() { return sqlite3_column_double(handle_, column_++); }

std::string Row::ReadBytes() {
  const void* data = sqlite3_column_blob(handle_, column_);
  const int size = sqlite3_column_bytes(handle_, column_);
  ++column_;
  if (data == nullptr) return {};
  return std::string(static_cast<const char*>(data), static_cast<size_t>(size));
}

}  // namespace assay::storage::sqlite
