// Where a server is: HOST:PORT as people write it.
#pragma once

#include <string>

namespace assay {

// Whether `address` ("HOST:PORT") is on this machine only: 127.0.0.0/8, [::1], localhost or a Unix
// socket. Nothing else is served or dialled without TLS.
bool IsLoopbackAddress(const std::string& address);

}  // namespace assay
