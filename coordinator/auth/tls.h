// TLS for the coordinator's port: its certificate, its key, and the authority of its workers.
#pragma once

#include <absl/status/statusor.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

namespace assay::coordinator {

struct TlsFiles {
  std::string cert;  // PEM files; all three, or none: no TLS
  std::string key;   // readable by nobody else
  std::string ca;    // signs the certificates of workers
  bool any() const { return !cert.empty() || !key.empty() || !ca.empty(); }
};

// INVALID_ARGUMENT when one is missing or is no PEM; ReadSecretFile's errors for the key. A client
// may come without a certificate; one that it shows must be of the authority, in date and for
// clients.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeTlsCredentials(const TlsFiles& files);

}  // namespace assay::coordinator
