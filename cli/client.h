// The connection to a coordinator: stubs, deadlines, retries, and errors that say what to do.
//
// Every call of the protocol that a client makes is safe to repeat (reads, and mutations by their
// request_id), so UNAVAILABLE is retried with backoff: for a moment when the coordinator was never
// reached, for longer when it was (it restarts). An error names the coordinator's address.
//
// Thread-safe in so far as Cancel may be called while another thread is in a call.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "assay/v1/fleet_service.grpc.pb.h"
#include "assay/v1/results_service.grpc.pb.h"
#include "assay/v1/sweep_service.grpc.pb.h"
#include "assay/v1/token_service.grpc.pb.h"

namespace assay::cli {

namespace v1 = ::assay::v1;

// INVALID_ARGUMENT, saying what to give instead, when `address` is not HOST:PORT.
absl::Status CheckAddress(const std::string& address);

class Client {
 public:
  struct Options {
    std::string address;  // HOST:PORT
    std::string tls_ca;   // PEM text of the authority that signs the coordinator's; empty: no TLS
    std::string token;    // of the person; sent with TLS only
    // How long UNAVAILABLE is retried: before the first answer, and after one.
    absl::Duration connect_patience = absl::Seconds(2);
    absl::Duration outage_patience = absl::Seconds(30);
  };

  // INVALID_ARGUMENT when the address is not HOST:PORT, or of another machine and there is no TLS.
  // Does not connect yet.
  static absl::StatusOr<std::unique_ptr<Client>> Create(Options options);

  v1::SweepService::StubInterface& sweeps() { return *sweeps_; }
  v1::ResultsService::StubInterface& results() { return *results_; }
  v1::FleetService::StubInterface& fleet() { return *fleet_; }
  v1::TokenService::StubInterface& tokens() { return *tokens_; }

  enum class Retry { kYes, kNo };  // of UNAVAILABLE

  // client.Call(client.sweeps(), &v1::SweepService::StubInterface::GetSweep, request)
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Call(
      Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
      const Request& request, absl::Duration timeout = kCallTimeout, Retry retry = Retry::kYes) {
    Response response;
    const Attempt attempt = [&](grpc::ClientContext* context) {
      return (stub.*method)(context, request, &response);
    };
    const absl::Status status =
        retry == Retry::kYes ? UntilAvailable(timeout, attempt) : Once(timeout, attempt);
    if (!status.ok()) return status;
    return response;
  }

  // Reads a stream of messages to its end, once. `on_message` returns false to end it early, which
  // is no error. UNAVAILABLE is not retried here: only the caller knows where to go on.
  template <typename Message>
  absl::Status ReadStream(absl::Duration timeout,
                          const std::function<std::unique_ptr<grpc::ClientReaderInterface<Message>>(
                              grpc::ClientContext*)>& open,
                          const std::function<bool(const Message&)>& on_message) {
    return Once(timeout, [&](grpc::ClientContext* context) {
      const auto reader = open(context);
      Message message;
      bool ended_by_us = false;
      while (!ended_by_us && reader->Read(&message)) {
        reached_ = true;
        if (!on_message(message)) ended_by_us = true;
      }
      if (ended_by_us) context->TryCancel();
      const grpc::Status status = reader->Finish();
      return ended_by_us ? grpc::Status::OK : status;
    });
  }

  // Ends the calls in progress, and every later one, with CANCELLED.
  void Cancel();

  const std::string& address() const { return options_.address; }
  const Options& options() const { return options_; }

  static constexpr absl::Duration kCallTimeout = absl::Seconds(30);

 private:
  using Attempt = std::function<grpc::Status(grpc::ClientContext*)>;

  explicit Client(Options options);

  absl::Status UntilAvailable(absl::Duration timeout, const Attempt& attempt);
  absl::Status Once(absl::Duration timeout, const Attempt& attempt);
  absl::Status Translate(const grpc::Status& status, absl::Duration timeout);

  const Options options_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::SweepService::StubInterface> sweeps_;
  std::unique_ptr<v1::ResultsService::StubInterface> results_;
  std::unique_ptr<v1::FleetService::StubInterface> fleet_;
  std::unique_ptr<v1::TokenService::StubInterface> tokens_;
  bool reached_ = false;  // the coordinator answered once

  std::mutex mutex_;
  // Calls in progress: more than one where a message of a stream leads to another call. Guarded by
  // mutex_.
  std::vector<grpc::ClientContext*> active_;
  bool cancelled_ = false;  // guarded by mutex_
};

// `status`, with `remedy` added when its code is NOT_FOUND and the coordinator named none:
// "...; `assay sweep ls` lists the sweeps".
absl::Status WithRemedy(const absl::Status& status, const std::string& remedy);

}  // namespace assay::cli
