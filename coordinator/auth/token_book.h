// Tokens of people: made, hashed, looked up.
//
// A token is "assay_<id>_<secret>": the id (12 hexadecimal digits) finds its record, the secret is
// 256 bits from the kernel. Only SHA-256 of the whole is kept, in the database and here; a random
// secret of that length needs no slow hash. A token is shown once, when it is made.
//
// The book is the present set in memory, so that a call is checked without reading the database.
// Thread-safe.
#pragma once

#include <absl/base/thread_annotations.h>
#include <absl/status/statusor.h>
#include <absl/synchronization/mutex.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/auth/roles.h"
#include "storage/stores/records.h"

namespace assay::coordinator {

inline constexpr size_t kMaxTokens = 10'000;  // with the revoked ones

struct NewToken {
  std::string text;  // the secret: to its owner and nowhere else
  storage::TokenRecord record;
};

// INVALID_ARGUMENT unless `name` is 1 to 64 of A-Z a-z 0-9 . _ -
absl::StatusOr<NewToken> MakeToken(const std::string& name, Role role, int64_t time_us);

struct Person {
  std::string token_id;
  std::string name;
  Role role = Role::kNone;
};

class TokenBook {
 public:
  void Reset(const std::vector<storage::TokenRecord>& tokens);
  void Add(const storage::TokenRecord& token);
  void Revoke(const std::string& token_id, int64_t time_us);

  // Whose token this is; empty when it is malformed, unknown or revoked. The comparison takes as
  // long for a good secret as for a bad one.
  std::optional<Person> Find(const std::string& text) const;

  // Whether a use of the token at this time is worth writing down: once a minute.
  bool NoteUse(const std::string& token_id, int64_t time_us);

  // As they are here, oldest first by time made.
  std::vector<storage::TokenRecord> List() const;

 private:
  mutable absl::Mutex mutex_;
  std::map<std::string, storage::TokenRecord> tokens_ ABSL_GUARDED_BY(mutex_);  // by id
};

}  // namespace assay::coordinator
