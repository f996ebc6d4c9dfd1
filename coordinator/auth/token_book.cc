#include "coordinator/auth/token_book.h"

#include <algorithm>

#include "base/hash.h"
#include "base/ids.h"
#include "base/status.h"

namespace assay::coordinator {
namespace {

constexpr std::string_view kPrefix = "assay_";
constexpr int kIdBytes = 6;
constexpr int kSecretBytes = 32;
constexpr size_t kIdDigits = 2 * kIdBytes;
constexpr size_t kTokenDigits = kPrefix.size() + kIdDigits + 1 + 2 * kSecretBytes;
constexpr size_t kMaxNameBytes = 64;
constexpr int64_t kUseStepUs = 60'000'000;

bool IsPlain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

}  // namespace

absl::StatusOr<NewToken> MakeToken(const std::string& name, Role role, int64_t time_us) {
  if (name.empty() || name.size() > kMaxNameBytes ||
      !std::all_of(name.begin(), name.end(), IsPlain)) {
    return InvalidArgument("the name of a token must be 1 to {} of A-Z a-z 0-9 . _ -",
                           kMaxNameBytes);
  }
  if (role == Role::kNone) return InvalidArgument("a token needs a role: viewer, submitter, admin");
  NewToken made;
  made.record.token_id = RandomHex(kIdBytes);
  made.text = fmt::format("{}{}_{}", kPrefix, made.record.token_id, RandomHex(kSecretBytes));
  made.record.name = name;
  made.record.role = static_cast<int32_t>(role);
  made.record.hash = Sha256Hex(made.text);
  made.record.created_time_us = time_us;
  return made;
}

void TokenBook::Reset(const std::vector<storage::TokenRecord>& tokens) {
  absl::MutexLock lock(&mutex_);
  tokens_.clear();
  for (const storage::TokenRecord& token : tokens) tokens_[token.token_id] = token;
}

void TokenBook::Add(const storage::TokenRecord& token) {
  absl::MutexLock lock(&mutex_);
  tokens_[token.token_id] = token;
}

void TokenBook::Revoke(const std::string& token_id, int64_t time_us) {
  absl::MutexLock lock(&mutex_);
  const auto token = tokens_.find(token_id);
  if (token == tokens_.end() || token->second.revoked_time_us != 0) return;
  token->second.revoked_time_us = time_us;
}

std::optional<Person> TokenBook::Find(const std::string& text) const {
  if (text.size() != kTokenDigits || !text.starts_with(kPrefix)) return std::nullopt;
  const std::string hash = Sha256Hex(text);
  absl::MutexLock lock(&mutex_);
  const auto found = tokens_.find(text.substr(kPrefix.size(), kIdDigits));
  if (found == tokens_.end()) return std::nullopt;
  const storage::TokenRecord& token = found->second;
  if (!EqualInConstantTime(hash, token.hash) || token.revoked_time_us != 0) return std::nullopt;
  return Person{token.token_id, token.name, static_cast<Role>(token.role)};
}

bool TokenBook::NoteUse(const std::string& token_id, int64_t time_us) {
  absl::MutexLock lock(&mutex_);
  const auto token = tokens_.find(token_id);
  if (token == tokens_.end() || time_us - token->second.last_used_time_us < kUseStepUs) {
    return false;
  }
  token->second.last_used_time_us = time_us;
  return true;
}

std::vector<storage::TokenRecord> TokenBook::List() const {
  std::vector<storage::TokenRecord> tokens;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, token] : tokens_) tokens.push_back(token);
  }
  std::ranges::stable_sort(tokens, {}, &storage::TokenRecord::created_time_us);
  return tokens;
}

}  // namespace assay::coordinator
