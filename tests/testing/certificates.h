// Certificates for tests, made by deploy/certs.sh and openssl.
#pragma once

#include <string>

namespace assay::testing {

// An authority with a certificate for the coordinator, on loopback unless told otherwise. Every
// method returns the path of a certificate; its key is beside it, named by KeyOf. Failures are test
// failures.
class Certificates {
 public:
  // `server_names` are those that clients dial, with commas between them.
  explicit Certificates(std::string directory,
                        const std::string& server_names = "localhost,127.0.0.1");

  std::string ca() const { return directory_ + "/ca.crt"; }
  std::string server() const { return directory_ + "/server.crt"; }

  std::string MakeWorker(const std::string& worker_id);
  // As a worker's, by the same authority; no longer in date.
  std::string MakeExpiredWorker(const std::string& worker_id);
  // A client's with these X.509 names ("DNS:a,URI:b").
  std::string MakeClient(const std::string& file_name, const std::string& names, int days = 1);

  static std::string KeyOf(const std::string& certificate);

 private:
  const std::string directory_;
};

}  // namespace assay::testing
