// A coordinator that answers what the test says: the three services of the command line on a port
// of its own. Thread-safe where the server's threads reach it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "assay/v1/fleet_service.grpc.pb.h"
#include "assay/v1/results_service.grpc.pb.h"
#include "assay/v1/sweep_service.grpc.pb.h"

namespace assay::cli {

namespace v1 = ::assay::v1;

class FakeCoordinator {
 public:
  FakeCoordinator();
  ~FakeCoordinator();

  std::string address() const;

  // The answers. Set before a program asks.
  v1::Plan plan;
  v1::Sweep sweep;                 // of "sweep-1"; any other id is NOT_FOUND
  std::vector<v1::Sweep> watched;  // the states that WatchSweep streams
  v1::GetResultsResponse results;
  std::vector<v1::GetSampleResponse> samples;  // by summary().sample_id()
  v1::CompareCellsResponse comparison;
  std::vector<v1::RunQueryResponse> query;
  grpc::Status query_end;
  v1::WatchFleetResponse fleet;
  bool fleet_goes_on = false;  // WatchFleet waits for the client to leave
  // So many mutations are answered UNAVAILABLE first, as by a coordinator whose disk is full.
  int num_unavailable = 0;

  // What was asked.
  std::vector<std::string> request_ids();
  std::string submitted_yaml();
  std::string results_by();

 private:
  class Sweeps;
  class Results;
  class Fleet;

  // Records a mutation; the status to answer it with.
  grpc::Status Mutation(const std::string& request_id);

  std::mutex mutex_;
  std::vector<std::string> request_ids_;
  std::string submitted_yaml_;
  std::string results_by_;
  int port_ = 0;
  std::unique_ptr<Sweeps> sweeps_;
  std::unique_ptr<Results> results_service_;
  std::unique_ptr<Fleet> fleet_service_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace assay::cli
