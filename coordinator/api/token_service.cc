#include "coordinator/api/token_service.h"

#include "base/log.h"
#include "base/status.h"
#include "coordinator/api/limits.h"

namespace assay::coordinator {
namespace {

// Whoever may call a coordinator without TLS is on its machine today; a token would outlive that.
absl::Status CheckHasTls(const ApiContext& api) {
  if (api.door != nullptr) return absl::OkStatus();
  return FailedPrecondition(
      "this coordinator serves without TLS and knows no tokens; start it with --tls-cert, "
      "--tls-key and --tls-ca (deploy/certs.sh), or make one offline with `assay-coordinator token "
      "create`");
}

v1::Token ToProto(const storage::TokenRecord& record) {
  v1::Token token;
  token.set_id(record.token_id);
  token.set_name(record.name);
  token.set_role(static_cast<v1::Token::Role>(record.role));
  token.set_created_time_us(record.created_time_us);
  token.set_last_used_time_us(record.last_used_time_us);
  token.set_revoked_time_us(record.revoked_time_us);
  return token;
}

absl::Status Create(const ApiContext& api, const v1::CreateTokenRequest& request,
                    v1::CreateTokenResponse* response) {
  ASSAY_RETURN_IF_ERROR(CheckHasTls(api));
  if (request.role() < v1::Token::ROLE_VIEWER || request.role() > v1::Token::ROLE_ADMIN) {
    return InvalidArgument("role {} is none of viewer, submitter, admin",
                           static_cast<int>(request.role()));
  }
  if (api.tokens->List().size() >= kMaxTokens) {
    return ResourceExhausted("there are {} tokens, the most that are kept", kMaxTokens);
  }
  ASSAY_ASSIGN_OR_RETURN(NewToken made, MakeToken(request.name(), static_cast<Role>(request.role()),
                                                  api.clock->NowMicros()));
  absl::Status outcome;
  ASSAY_RETURN_IF_ERROR(
      api.loop->Run([&](ControlPlane& plane) { outcome = plane.HandleCreateToken(made.record); }));
  ASSAY_RETURN_IF_ERROR(outcome);
  api.tokens->Add(made.record);
  spdlog::info("token {} made for {}, role {}", made.record.token_id, made.record.name,
               NameOf(static_cast<Role>(made.record.role)));
  *response->mutable_token() = ToProto(made.record);
  response->set_secret(std::move(made.text));
  return absl::OkStatus();
}

absl::Status Revoke(const ApiContext& api, const std::string& token_id) {
  ASSAY_RETURN_IF_ERROR(CheckHasTls(api));
  ASSAY_RETURN_IF_ERROR(CheckWorkerName("token_id", token_id));
  absl::Status outcome;
  ASSAY_RETURN_IF_ERROR(
      api.loop->Run([&](ControlPlane& plane) { outcome = plane.HandleRevokeToken(token_id); }));
  ASSAY_RETURN_IF_ERROR(outcome);
  api.tokens->Revoke(token_id, api.clock->NowMicros());
  spdlog::info("token {} revoked", token_id);
  return absl::OkStatus();
}

}  // namespace

grpc::ServerUnaryReactor* TokenServiceImpl::CreateToken(grpc::CallbackServerContext* context,
                                                        const v1::CreateTokenRequest* request,
                                                        v1::CreateTokenResponse* response) {
  return AnswerOnReader(
      *api_, context, [api = api_, request, response] { return Create(*api, *request, response); });
}

grpc::ServerUnaryReactor* TokenServiceImpl::ListTokens(grpc::CallbackServerContext* context,
                                                       const v1::ListTokensRequest*,
                                                       v1::ListTokensResponse* response) {
  return AnswerOnReader(*api_, context, [api = api_, response]() -> absl::Status {
    ASSAY_RETURN_IF_ERROR(CheckHasTls(*api));
    for (const storage::TokenRecord& token : api->tokens->List()) {
      *response->add_tokens() = ToProto(token);
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* TokenServiceImpl::RevokeToken(grpc::CallbackServerContext* context,
                                                        const v1::RevokeTokenRequest* request,
                                                        v1::RevokeTokenResponse*) {
  return AnswerOnReader(*api_, context,
                        [api = api_, request] { return Revoke(*api, request->token_id()); });
}

}  // namespace assay::coordinator
