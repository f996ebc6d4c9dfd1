// The database's schema, as numbered steps that only go forward. NNNN_name.sql beside this file is
// step NNNN; the build puts their texts into the program. A step that has been merged is never
// edited; user_version in the file is the last one applied.
#pragma once

#include <absl/status/status.h>

#include <span>
#include <string>
#include <string_view>

namespace assay::storage {

namespace sqlite {
class Connection;
}  // namespace sqlite

struct Migration {
  int version = 0;
  std::string_view name;  // "0001_plans"
  std::string_view sql;
};

// Every step of this program, in order from 1.
std::span<const Migration> Migrations();

// Brings the writer's file up to the last step, in one transaction: a crash leaves the old file. An
// older file that holds data is first copied to PATH.before-schema-N (N the new version); a copy of
// that name from an earlier try is kept. INVALID_ARGUMENT when the file is of a newer program.
absl::Status Migrate(sqlite::Connection* connection,
                     std::span<const Migration> migrations = Migrations());

// INVALID_ARGUMENT unless the file's schema is exactly this program's: older files must be migrated
// by a coordinator first.
absl::Status CheckSchemaVersion(sqlite::Connection* connection);

}  // namespace assay::storage
