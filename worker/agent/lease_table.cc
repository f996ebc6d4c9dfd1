#include "worker/agent/lease_table.h"

#include <algorithm>

namespace assay::worker {

bool LeaseTable::Add(const v1::Grant& grant) {
  const std::lock_guard lock(mutex_);
  const auto [it, is_new] = leases_.try_emplace(grant.lease_id());
  if (!is_new) return false;
  for (const v1::Unit& unit : grant.units()) it->second.tokens_of_unit[IdOf(unit.key())] = 0;
  if (grant.units().empty()) leases_.erase(it);
  return true;
}

void LeaseTable::SetTokens(const std::string& lease_id, const v1::UnitKey& unit,
                           int64_t num_tokens) {
  const std::lock_guard lock(mutex_);
  const auto lease = leases_.find(lease_id);
  if (lease == leases_.end()) return;
  const auto tokens = lease->second.tokens_of_unit.find(IdOf(unit));
  if (tokens == lease->second.tokens_of_unit.end()) return;
  tokens->second = std::max(tokens->second, num_tokens);
}

void LeaseTable::Settle(const std::string& lease_id, const v1::UnitKey& unit) {
  const std::lock_guard lock(mutex_);
  const auto lease = leases_.find(lease_id);
  if (lease == leases_.end()) return;
  const auto tokens = lease->second.tokens_of_unit.find(IdOf(unit));
  if (tokens == lease->second.tokens_of_unit.end()) return;
  lease->second.settled_tokens += tokens->second;
  lease->second.tokens_of_unit.erase(tokens);
  if (lease->second.tokens_of_unit.empty()) leases_.erase(lease);
}

void LeaseTable::Remove(const std::string& lease_id) {
  const std::lock_guard lock(mutex_);
  leases_.erase(lease_id);
}

std::vector<v1::LeaseProgress> LeaseTable::Progress() const {
  const std::lock_guard lock(mutex_);
  std::vector<v1::LeaseProgress> progress;
  for (const auto& [lease_id, lease] : leases_) {
    v1::LeaseProgress& entry = progress.emplace_back();
    entry.set_lease_id(lease_id);
    entry.set_num_units_left(static_cast<int32_t>(lease.tokens_of_unit.size()));
    int64_t num_tokens = lease.settled_tokens;
    for (const auto& [unit, tokens] : lease.tokens_of_unit) num_tokens += tokens;
    entry.set_tokens_generated(num_tokens);
  }
  return progress;
}

bool LeaseTable::empty() const {
  const std::lock_guard lock(mutex_);
  return leases_.empty();
}

}  // namespace assay::worker
