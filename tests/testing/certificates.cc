#include "tests/testing/certificates.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "tests/testing/local_system.h"
#include "tests/testing/paths.h"

namespace assay::testing {
namespace {

void MustRun(const std::vector<std::string>& argv) {
  const CommandResult result = RunProgram(argv);
  EXPECT_EQ(result.exit_code, 0) << argv[0] << " " << argv[1] << ": " << result.err;
}

}  // namespace

Certificates::Certificates(std::string directory, const std::string& server_names)
    : directory_(std::move(directory)) {
  MustRun({SourcePath("deploy/certs.sh"), "ca", directory_});
  MustRun({SourcePath("deploy/certs.sh"), "server", directory_, server_names});
}

std::string Certificates::MakeWorker(const std::string& worker_id) {
  MustRun({SourcePath("deploy/certs.sh"), "worker", directory_, worker_id});
  return directory_ + "/worker-" + worker_id + ".crt";
}

std::string Certificates::MakeExpiredWorker(const std::string& worker_id) {
  return MakeClient("expired-" + worker_id, "URI:urn:assay:worker:" + worker_id, -1);
}

std::string Certificates::MakeClient(const std::string& file_name, const std::string& names,
                                     int days) {
  const std::string stem = directory_ + "/" + file_name;
  MustRun({"bash", "-euc",
           "umask 077\n"
           "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out \"$1.key\"\n"
           "openssl req -new -key \"$1.key\" -subj /CN=test -out \"$1.csr\"\n"
           "printf 'extendedKeyUsage=clientAuth\\nsubjectAltName=%s\\n' \"$3\" > \"$1.ext\"\n"
           "openssl x509 -req -in \"$1.csr\" -CA \"$2/ca.crt\" -CAkey \"$2/ca.key\""
           " -set_serial 77 -days \"$4\" -extfile \"$1.ext\" -out \"$1.crt\"\n",
           "make-client", stem, directory_, names, std::to_string(days)});
  return stem + ".crt";
}

std::string Certificates::KeyOf(const std::string& certificate) {
  return certificate.substr(0, certificate.size() - 4) + ".key";
}

}  // namespace assay::testing
