#include "coordinator/auth/doorkeeper.h"

#include <grpc/grpc_security_constants.h>

#include <vector>

#include "base/log.h"
#include "base/status.h"

namespace assay::coordinator {
namespace {

constexpr double kRefusalsLoggedPerSecond = 1;
constexpr char kBearer[] = "Bearer ";

// The one worker that the certificate names, or nothing.
std::string WorkerOf(const grpc::AuthContext& connection) {
  std::string worker_id;
  for (const grpc::string_ref& uri : connection.FindPropertyValues(GRPC_PEER_URI_PROPERTY_NAME)) {
    const std::string text(uri.data(), uri.size());
    if (!text.starts_with(kWorkerUriPrefix)) continue;
    if (!worker_id.empty()) return "";  // two names are none
    worker_id = text.substr(sizeof kWorkerUriPrefix - 1);
  }
  return worker_id;
}

// The bearer token, or nothing when there is none or more than one.
std::string TokenOf(const std::multimap<grpc::string_ref, grpc::string_ref>& metadata) {
  const auto [first, last] = metadata.equal_range("authorization");
  if (first == last || std::next(first) != last) return "";
  const std::string value(first->second.data(), first->second.size());
  return value.starts_with(kBearer) ? value.substr(sizeof kBearer - 1) : "";
}

}  // namespace

std::string Caller::key() const {
  switch (kind) {
    case Kind::kPerson:
      return "token/" + token_id;
    case Kind::kWorker:
      return "worker/" + name;
    case Kind::kLocal:
    case Kind::kNobody:
      break;
  }
  return "";
}

absl::Status Caller::CheckMayChange(const std::string& owner) const {
  if (is_admin() || (kind == Kind::kPerson && role >= Role::kSubmitter && name == owner)) {
    return absl::OkStatus();
  }
  return PermissionDenied("the sweep is not yours: only its owner or an admin may change it");
}

absl::Status Caller::CheckIsWorker(const std::string& worker_id) const {
  if (kind == Kind::kLocal || (kind == Kind::kWorker && name == worker_id)) return absl::OkStatus();
  return PermissionDenied(
      "this connection's certificate is of worker '{}', the message of another: start the worker "
      "with that --worker-id or a certificate of its own",
      name);
}

Doorkeeper::Doorkeeper(TokenBook* book, const Clock* clock, OnUse on_use)
    : book_(book),
      clock_(clock),
      on_use_(std::move(on_use)),
      log_limiter_(kRefusalsLoggedPerSecond, clock) {}

Caller Doorkeeper::Identify(
    const grpc::AuthContext& connection,
    const std::multimap<grpc::string_ref, grpc::string_ref>& metadata) const {
  if (const std::string token = TokenOf(metadata); !token.empty()) {
    if (const std::optional<Person> person = book_->Find(token)) {
      return {Caller::Kind::kPerson, person->name, person->token_id, person->role};
    }
    return {};
  }
  if (const std::string worker_id = WorkerOf(connection); !worker_id.empty()) {
    return {Caller::Kind::kWorker, worker_id, "", Role::kNone};
  }
  return {};
}

grpc::Status Doorkeeper::Process(const InputMetadata& metadata, grpc::AuthContext* connection,
                                 OutputMetadata*, OutputMetadata*) {
  const auto found = metadata.find(":path");
  const std::string path =
      found == metadata.end() ? "" : std::string(found->second.data(), found->second.size());
  const Access access = AccessFor(path);
  if (access.who == Access::Who::kAnybody) return grpc::Status::OK;
  const Caller caller = Identify(*connection, metadata);
  if (access.who == Access::Who::kWorker) {
    if (caller.kind == Caller::Kind::kWorker) return grpc::Status::OK;
    return Refuse(grpc::StatusCode::UNAUTHENTICATED, caller, path,
                  "a worker needs a certificate of this coordinator's authority that names it: "
                  "deploy/certs.sh worker makes one, --tls-cert and --tls-key give it");
  }
  if (access.who == Access::Who::kPerson) {
    if (caller.kind != Caller::Kind::kPerson) {
      return Refuse(grpc::StatusCode::UNAUTHENTICATED, caller, path,
                    "no valid token: put yours into ~/.config/assay/token or ASSAY_TOKEN; an admin "
                    "makes one with `assay token create`");
    }
    if (caller.role >= access.role) {
      const int64_t now_us = clock_->NowMicros();
      if (book_->NoteUse(caller.token_id, now_us)) on_use_(caller.token_id, now_us);
      return grpc::Status::OK;
    }
    return Refuse(grpc::StatusCode::PERMISSION_DENIED, caller, path,
                  fmt::format("this needs the role {}; your token has {}", NameOf(access.role),
                              NameOf(caller.role)));
  }
  return Refuse(grpc::StatusCode::PERMISSION_DENIED, caller, path, "there is no such call here");
}

grpc::Status Doorkeeper::Refuse(grpc::StatusCode code, const Caller& caller,
                                const std::string& path, const std::string& why) {
  if (log_limiter_.Admit("")) {
    const bool known = caller.kind != Caller::Kind::kNobody;
    // A path is the caller's own words until it has a row.
    spdlog::warn("refused: {} by {}", HasAccessRow(path) ? path : "an unknown call",
                 known ? caller.name : "somebody without a valid token or certificate");
  }
  return {code, why};
}

}  // namespace assay::coordinator
