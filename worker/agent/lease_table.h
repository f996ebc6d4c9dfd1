// What the worker holds: its leases, their units, and how far they are.
//
// A unit is held from its grant until the coordinator has answered for it: its sample is stored or
// fenced, its failure is recorded, or it was revoked. So the coordinator never takes a finished
// lease whose report is still on its way for a lost one.
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "assay/v1/worker_service.pb.h"
#include "worker/agent/unit_id.h"

namespace assay::worker {

class LeaseTable {
 public:
  // False when the lease is known already: a repeated grant.
  bool Add(const v1::Grant& grant);

  // Tokens of one unit so far; a lower number than before changes nothing.
  void SetTokens(const std::string& lease_id, const v1::UnitKey& unit, int64_t num_tokens);

  // The coordinator has answered for the unit.
  void Settle(const std::string& lease_id, const v1::UnitKey& unit);
  // The lease as a whole was revoked.
  void Remove(const std::string& lease_id);

  std::vector<v1::LeaseProgress> Progress() const;
  bool empty() const;

 private:
  struct Lease {
    std::map<UnitId, int64_t> tokens_of_unit;  // of those left
    int64_t settled_tokens = 0;
  };

  mutable std::mutex mutex_;
  std::map<std::string, Lease> leases_;
};

}  // namespace assay::worker
