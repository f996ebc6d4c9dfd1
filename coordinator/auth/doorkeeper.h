// Who calls, and whether they may: checked for every call before its service sees it.
//
// With TLS a worker shows a certificate of the coordinator's authority whose URI name is
// "urn:assay:worker:ID"; a person sends "authorization: Bearer TOKEN". The server asks for a
// certificate and verifies it when there is one, but does not insist, because people have none.
// What a call needs is in roles.h. Refusals say what is missing and nothing about anybody else.
//
// Services ask Identify() again where the answer depends on what is asked for: whether the
// worker_id of a message is the certificate's, whether a sweep is the caller's own.
//
// Thread-safe; never blocks.
#pragma once

#include <absl/status/status.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/security/auth_metadata_processor.h>

#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "coordinator/auth/rate_limiter.h"
#include "coordinator/auth/token_book.h"

namespace assay::coordinator {

struct Caller {
  enum class Kind {
    kLocal,   // no TLS: somebody on this machine, who may do everything
    kPerson,  // with a token
    kWorker,  // with a certificate
    kNobody,
  };
  Kind kind = Kind::kNobody;
  std::string name;      // of the person or worker
  std::string token_id;  // of a person
  Role role = Role::kNone;

  bool is_admin() const { return kind == Kind::kLocal || role == Role::kAdmin; }
  // Who a limit of rates counts: not empty for persons and workers.
  std::string key() const;

  // PERMISSION_DENIED unless a sweep of this owner is the caller's to change.
  absl::Status CheckMayChange(const std::string& owner) const;
  // PERMISSION_DENIED unless a message that says it is of this worker may be so.
  absl::Status CheckIsWorker(const std::string& worker_id) const;
};

// "urn:assay:worker:ID": the URI name of a worker's certificate.
inline constexpr char kWorkerUriPrefix[] = "urn:assay:worker:";

class Doorkeeper final : public grpc::AuthMetadataProcessor {
 public:
  using OnUse = std::function<void(const std::string& token_id, int64_t time_us)>;

  // `book` and `clock` outlive it. `on_use` is told now and then that a token was used.
  Doorkeeper(TokenBook* book, const Clock* clock, OnUse on_use);

  // Who has made this call, as far as TLS and metadata tell.
  Caller Identify(const grpc::AuthContext& connection,
                  const std::multimap<grpc::string_ref, grpc::string_ref>& metadata) const;

  // Cheap, hence on gRPC's own thread.
  bool IsBlocking() const override { return false; }
  grpc::Status Process(const InputMetadata& metadata, grpc::AuthContext* connection,
                       OutputMetadata* consumed, OutputMetadata* response) override;

 private:
  grpc::Status Refuse(grpc::StatusCode code, const Caller& caller, const std::string& path,
                      const std::string& why);

  TokenBook* const book_;
  const Clock* const clock_;
  const OnUse on_use_;
  RateLimiter log_limiter_;  // somebody who knocks all day fills no disk
};

}  // namespace assay::coordinator
