#include "coordinator/auth/tls.h"

#include "base/file.h"
#include "base/status.h"

namespace assay::coordinator {
namespace {

constexpr int64_t kMaxPemBytes = 1 << 20;

absl::Status CheckPem(const std::string& path, const std::string& text, const char* kind) {
  const size_t begin = text.find("-----BEGIN ");
  if (begin != std::string::npos && text.find(kind, begin) != std::string::npos) {
    return absl::OkStatus();
  }
  return InvalidArgument("{}: holds no {} in PEM form", path, kind);
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeTlsCredentials(const TlsFiles& files) {
  if (files.cert.empty() || files.key.empty() || files.ca.empty()) {
    return InvalidArgument("TLS needs --tls-cert, --tls-key and --tls-ca, all three");
  }
  grpc::SslServerCredentialsOptions options(GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  ASSAY_ASSIGN_OR_RETURN(options.pem_root_certs, ReadFile(files.ca, kMaxPemBytes));
  ASSAY_RETURN_IF_ERROR(CheckPem(files.ca, options.pem_root_certs, "CERTIFICATE"));
  grpc::SslServerCredentialsOptions::PemKeyCertPair pair;
  ASSAY_ASSIGN_OR_RETURN(pair.cert_chain, ReadFile(files.cert, kMaxPemBytes));
  ASSAY_RETURN_IF_ERROR(CheckPem(files.cert, pair.cert_chain, "CERTIFICATE"));
  ASSAY_ASSIGN_OR_RETURN(pair.private_key, ReadSecretFile(files.key));
  ASSAY_RETURN_IF_ERROR(CheckPem(files.key, pair.private_key, "PRIVATE KEY"));
  options.pem_key_cert_pairs.push_back(std::move(pair));
  return grpc::SslServerCredentials(options);
}

}  // namespace assay::coordinator
