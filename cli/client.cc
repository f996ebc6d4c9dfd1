#include "cli/client.h"

#include <absl/time/clock.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>

#include "base/address.h"
#include "base/clock.h"
#include "base/status.h"
#include "cli/interrupt.h"
#include "cli/output/format.h"

namespace assay::cli {
namespace {

constexpr int kMaxMessageBytes = 64 << 20;  // a table of a large sweep, a long answer
constexpr absl::Duration kFirstPause = absl::Milliseconds(100);
constexpr absl::Duration kLongestPause = absl::Seconds(2);

grpc::ChannelArguments Arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  // A proxy of the environment is for the web; a coordinator is inside.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  return arguments;
}

}  // namespace

absl::Status CheckAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon != std::string::npos && colon > 0) {
    const char* end = address.data() + address.size();
    const auto parsed = std::from_chars(address.data() + colon + 1, end, port);
    if (parsed.ec == std::errc() && parsed.ptr == end && port >= 1 && port <= 65535) {
      return absl::OkStatus();
    }
  }
  return InvalidArgument(
      "'{}' is not the address of a coordinator: give HOST:PORT with --coordinator or in "
      "ASSAY_COORDINATOR, as 127.0.0.1:7350",
      address);
}

absl::StatusOr<std::unique_ptr<Client>> Client::Create(Options options) {
  ASSAY_RETURN_IF_ERROR(CheckAddress(options.address));
  if (options.tls_ca.empty() && !IsLoopbackAddress(options.address)) {
    return InvalidArgument(
        "{}: another machine is spoken to with TLS only: give --tls-ca FILE or ASSAY_TLS_CA, the "
        "authority (ca.crt) of its coordinator",
        options.address);
  }
  // gRPC's own log lines on stderr say less than our errors.
  ::setenv("GRPC_VERBOSITY", "NONE", 0);
  return std::unique_ptr<Client>(new Client(std::move(options)));
}

Client::Client(Options options)
    : options_(std::move(options)),
      channel_(grpc::CreateCustomChannel(options_.address,
                                         options_.tls_ca.empty()
                                             ? grpc::InsecureChannelCredentials()
                                             : grpc::SslCredentials({options_.tls_ca, "", ""}),
                                         Arguments())),
      sweeps_(v1::SweepService::NewStub(channel_)),
      results_(v1::ResultsService::NewStub(channel_)),
      fleet_(v1::FleetService::NewStub(channel_)),
      tokens_(v1::TokenService::NewStub(channel_)) {}

void Client::Cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  for (grpc::ClientContext* context : active_) context->TryCancel();
}

absl::Status Client::UntilAvailable(absl::Duration timeout, const Attempt& attempt) {
  const Clock* clock = RealClock::Get();
  const absl::Duration started = clock->Monotonic();
  absl::Duration pause = kFirstPause;
  while (true) {
    absl::Status status = Once(timeout, attempt);
    if (status.ok()) reached_ = true;
    if (status.code() != absl::StatusCode::kUnavailable) return status;
    const absl::Duration patience = reached_ ? options_.outage_patience : options_.connect_patience;
    if (clock->Monotonic() - started + pause > patience) return status;
    if (WaitForInterrupt(pause)) return Cancelled("interrupted");
    pause = std::min(pause * 2, kLongestPause);
  }
}

absl::Status Client::Once(absl::Duration timeout, const Attempt& attempt) {
  grpc::ClientContext context;
  if (!options_.tls_ca.empty() && !options_.token.empty()) {
    context.AddMetadata("authorization", "Bearer " + options_.token);
  }
  if (timeout != absl::InfiniteDuration()) {
    context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMicroseconds(timeout));
  }
  {
    const std::lock_guard lock(mutex_);
    if (cancelled_) return Cancelled("interrupted");
    active_.push_back(&context);
  }
  const grpc::Status status = attempt(&context);
  {
    const std::lock_guard lock(mutex_);
    std::erase(active_, &context);
  }
  return Translate(status, timeout);
}

absl::Status Client::Translate(const grpc::Status& status, absl::Duration timeout) {
  if (status.ok()) return absl::OkStatus();
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  // gRPC reports a lost or refused connection with the code that a coordinator uses for a full
  // disk; the channel's state tells them apart.
  if (code == absl::StatusCode::kUnavailable && channel_->GetState(false) != GRPC_CHANNEL_READY) {
    if (!options_.tls_ca.empty()) {
      return Unavailable(
          "cannot reach a coordinator with TLS at {}: does one serve there, and is its certificate "
          "of the authority in --tls-ca, in date and for this host? ({})",
          options_.address, status.error_message());
    }
    return Unavailable(
        "cannot reach a coordinator at {}: start one with `assay-coordinator --data DIR`, or name "
        "another with --coordinator HOST:PORT or ASSAY_COORDINATOR",
        options_.address);
  }
  // gRPC's own words for a deadline of this side; the coordinator's name what took too long.
  if (code == absl::StatusCode::kDeadlineExceeded &&
      status.error_message() == "Deadline Exceeded") {
    return DeadlineExceeded("the coordinator at {} gave no answer within {}; try again",
                            options_.address, FormatSpan(timeout));
  }
  if (code == absl::StatusCode::kUnimplemented) {
    return Unimplemented(
        "the coordinator at {} does not know this request: is it older than "
        "this program? ({})",
        options_.address, status.error_message());
  }
  return absl::Status(code, status.error_message());
}

absl::Status WithRemedy(const absl::Status& status, const std::string& remedy) {
  if (status.code() != absl::StatusCode::kNotFound) return status;
  const bool has_one = Message(status).find("`assay ") != std::string::npos;
  if (has_one) return status;
  return NotFound("{}; {}", Message(status), remedy);
}

}  // namespace assay::cli
