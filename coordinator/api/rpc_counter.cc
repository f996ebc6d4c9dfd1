#include "coordinator/api/rpc_counter.h"

#include <absl/status/status.h>

namespace assay::coordinator {
namespace {

using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::InterceptorBatchMethods;
using grpc::experimental::ServerRpcInfo;

class CountEnd final : public grpc::experimental::Interceptor {
 public:
  CountEnd(RpcCounter* counter, std::string method)
      : counter_(counter), method_(std::move(method)) {}

  void Intercept(InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      counter_->Add(method_, methods->GetSendStatus().error_code());
    }
    methods->Proceed();
  }

 private:
  RpcCounter* const counter_;
  const std::string method_;
};

class Factory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit Factory(RpcCounter* counter) : counter_(counter) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(ServerRpcInfo* info) override {
    return new CountEnd(counter_, info->method() == nullptr ? "" : info->method());
  }

 private:
  RpcCounter* const counter_;
};

// "/assay.v1.SweepService/GetSweep" as "SweepService/GetSweep".
std::string ShortName(const std::string& method) {
  constexpr char kOurs[] = "/assay.v1.";
  if (method.starts_with(kOurs)) return method.substr(sizeof kOurs - 1);
  return method.starts_with('/') ? method.substr(1) : method;
}

}  // namespace

void RpcCounter::Add(const std::string& method, grpc::StatusCode code) {
  const std::lock_guard lock(mutex_);
  auto count = calls_.find({method, code});
  if (count == calls_.end()) {
    count = calls_.try_emplace({calls_.size() < kMaxPairs ? method : "other", code}).first;
  }
  ++count->second;
}

std::vector<RpcCount> RpcCounter::Counts() const {
  const std::lock_guard lock(mutex_);
  std::vector<RpcCount> counts;
  counts.reserve(calls_.size());
  for (const auto& [call, num_calls] : calls_) {
    // gRPC's codes are abseil's.
    counts.push_back({ShortName(call.first),
                      absl::StatusCodeToString(static_cast<absl::StatusCode>(call.second)),
                      num_calls});
  }
  return counts;
}

std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>
RpcCounter::Interceptors() {
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(std::make_unique<Factory>(this));
  return interceptors;
}

}  // namespace assay::coordinator
