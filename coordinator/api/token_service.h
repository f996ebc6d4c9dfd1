// TokenService: tokens of people. Who may call it is checked at the door (auth/roles.h).
#pragma once

#include "assay/v1/token_service.grpc.pb.h"
#include "coordinator/api/api_context.h"

namespace assay::coordinator {

class TokenServiceImpl final : public v1::TokenService::CallbackService {
 public:
  // `api` outlives the service.
  explicit TokenServiceImpl(const ApiContext* api) : api_(api) {}

  grpc::ServerUnaryReactor* CreateToken(grpc::CallbackServerContext* context,
                                        const v1::CreateTokenRequest* request,
                                        v1::CreateTokenResponse* response) override;
  grpc::ServerUnaryReactor* ListTokens(grpc::CallbackServerContext* context,
                                       const v1::ListTokensRequest* request,
                                       v1::ListTokensResponse* response) override;
  grpc::ServerUnaryReactor* RevokeToken(grpc::CallbackServerContext* context,
                                        const v1::RevokeTokenRequest* request,
                                        v1::RevokeTokenResponse* response) override;

 private:
  const ApiContext* const api_;
};

}  // namespace assay::coordinator
