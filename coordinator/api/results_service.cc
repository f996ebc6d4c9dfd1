#include "coordinator/api/results_service.h"

#include <algorithm>

#include "base/status.h"
#include "coordinator/api/convert_views.h"
#include "coordinator/api/convert_worker.h"
#include "coordinator/api/limits.h"
#include "coordinator/api/query_process.h"
#include "coordinator/api/stream_writer.h"
#include "coordinator/reports/build_results.h"

namespace assay::coordinator {
namespace {

constexpr int kDefaultPage = 100;
constexpr int kMaxPage = 1000;

absl::Status Results(const ApiContext& api, const v1::GetResultsRequest& request,
                     v1::GetResultsResponse* response) {
  ASSAY_RETURN_IF_ERROR(CheckSweepId(request.sweep_id()));
  ASSAY_ASSIGN_OR_RETURN(const ReadStores::Borrowed store, api.stores->Borrow());
  ASSAY_ASSIGN_OR_RETURN(const SweepResults results,
                         BuildResults(*store, request.sweep_id(), request.by()));
  for (const ResultRow& row : results.rows) *response->add_rows() = ToProto(row);
  response->set_sweep_name(results.sweep_name);
  response->set_complete(results.complete);
  return absl::OkStatus();
}

absl::StatusOr<storage::SampleFilter> FromProto(v1::ListSamplesRequest::Filter filter) {
  switch (filter) {
    case v1::ListSamplesRequest::FILTER_UNSPECIFIED:
      return storage::SampleFilter::kAll;
    case v1::ListSamplesRequest::FILTER_CORRECT:
      return storage::SampleFilter::kCorrect;
    case v1::ListSamplesRequest::FILTER_WRONG:
      return storage::SampleFilter::kWrong;
    case v1::ListSamplesRequest::FILTER_TRUNCATED:
      return storage::SampleFilter::kTruncated;
    case v1::ListSamplesRequest::FILTER_UNGRADABLE:
      return storage::SampleFilter::kUngradable;
    default:
      return InvalidArgument("filter {} is not known here", static_cast<int>(filter));
  }
}

absl::Status Samples(const ApiContext& api, const v1::ListSamplesRequest& request,
                     v1::ListSamplesResponse* response) {
  if (request.item().size() > 1024 || request.page_token().size() > 1024) {
    return InvalidArgument("item and page_token have at most 1024 bytes");
  }
  ASSAY_ASSIGN_OR_RETURN(const ReadStores::Borrowed store, api.stores->Borrow());
  storage::SampleQuery query;
  if (!request.sweep_id().empty()) {
    ASSAY_RETURN_IF_ERROR(CheckSweepId(request.sweep_id()));
    ASSAY_ASSIGN_OR_RETURN(const storage::SweepRecord sweep, store->FindSweep(request.sweep_id()));
    query.sweep_row_id = sweep.id;
  } else if (request.cell_id() <= 0) {
    return InvalidArgument("name a sweep (sweep_id) or a cell (cell_id)");
  }
  query.cell_id = request.cell_id();
  query.item = request.item();
  ASSAY_ASSIGN_OR_RETURN(query.filter, FromProto(request.filter()));
  query.limit =
      request.page_size() == 0 ? kDefaultPage : std::clamp(request.page_size(), 1, kMaxPage);
  query.page_token = request.page_token();
  ASSAY_ASSIGN_OR_RETURN(const storage::SamplePage page, store->ListSamples(query));
  for (const storage::SampleSummary& sample : page.samples) {
    *response->add_samples() = ToProto(sample);
  }
  response->set_next_page_token(page.next_page_token);
  return absl::OkStatus();
}

absl::Status OneSample(const ApiContext& api, int64_t sample_id, v1::GetSampleResponse* response) {
  ASSAY_ASSIGN_OR_RETURN(const ReadStores::Borrowed store, api.stores->Borrow());
  ASSAY_ASSIGN_OR_RETURN(const storage::SampleDetail detail, store->GetSample(sample_id));
  *response->mutable_summary() = ToProto(detail.summary);
  response->set_question(detail.item.question);
  response->set_user_text(detail.item.user_text);
  response->set_gold(detail.item.gold);
  response->set_text(detail.text);
  response->mutable_token_ids()->Assign(detail.token_ids.begin(), detail.token_ids.end());
  response->set_seed(detail.record.seed);
  response->set_epoch(detail.record.epoch);
  response->set_worker_id(detail.record.worker_id);
  *response->mutable_provenance() = ToProto(detail.provenance);
  for (const storage::GradeRecord& grade : detail.grades) *response->add_grades() = ToProto(grade);
  response->set_queue_us(detail.record.queue_us);
  response->set_mean_batch_size(detail.record.mean_batch_size);
  response->set_finished_time_us(detail.record.finished_time_us);
  return absl::OkStatus();
}

absl::Status Compare(const ApiContext& api, const v1::CompareCellsRequest& request,
                     v1::CompareCellsResponse* response) {
  ASSAY_ASSIGN_OR_RETURN(const ReadStores::Borrowed store, api.stores->Borrow());
  ASSAY_ASSIGN_OR_RETURN(const Comparison comparison,
                         BuildComparison(*store, request.baseline_cell_id(), request.cell_id()));
  *response->mutable_baseline() = ToProto(comparison.baseline);
  *response->mutable_cell() = ToProto(comparison.cell);
  response->set_num_pairs(comparison.num_pairs);
  response->set_both_correct(comparison.both_correct);
  response->set_both_wrong(comparison.both_wrong);
  response->set_harmful_flips(comparison.harmful_flips);
  response->set_beneficial_flips(comparison.beneficial_flips);
  response->set_tost_p_1pp(comparison.tost_p_1pp);
  response->set_tost_p_3pp(comparison.tost_p_3pp);
  response->set_permutation_p(comparison.permutation_p);
  response->set_mean_length_log_ratio(comparison.mean_length_log_ratio);
  for (const Flip& flip : comparison.flips) {
    ASSAY_ASSIGN_OR_RETURN(const storage::SampleDetail detail, store->GetSample(flip.sample_id));
    *response->add_flips() = ToProto(detail.summary);
  }
  return absl::OkStatus();
}

using QueryWriter = BlockingWriter<v1::RunQueryResponse>;

}  // namespace

grpc::ServerUnaryReactor* ResultsServiceImpl::GetResults(grpc::CallbackServerContext* context,
                                                         const v1::GetResultsRequest* request,
                                                         v1::GetResultsResponse* response) {
  return AnswerOnReader(*api_, context, [api = api_, request, response] {
    return Results(*api, *request, response);
  });
}

grpc::ServerUnaryReactor* ResultsServiceImpl::ListSamples(grpc::CallbackServerContext* context,
                                                          const v1::ListSamplesRequest* request,
                                                          v1::ListSamplesResponse* response) {
  return AnswerOnReader(*api_, context, [api = api_, request, response] {
    return Samples(*api, *request, response);
  });
}

grpc::ServerUnaryReactor* ResultsServiceImpl::GetSample(grpc::CallbackServerContext* context,
                                                        const v1::GetSampleRequest* request,
                                                        v1::GetSampleResponse* response) {
  return AnswerOnReader(*api_, context, [api = api_, request, response] {
    return OneSample(*api, request->sample_id(), response);
  });
}

grpc::ServerUnaryReactor* ResultsServiceImpl::RequeueSample(grpc::CallbackServerContext* context,
                                                            const v1::RequeueSampleRequest* request,
                                                            v1::RequeueSampleResponse* response) {
  return AnswerOnReader(*api_, context, [api = api_, request, response]() -> absl::Status {
    ASSAY_RETURN_IF_ERROR(CheckRequestId(request->request_id()));
    absl::StatusOr<storage::UnitId> unit;
    ASSAY_RETURN_IF_ERROR(api->loop->Run([&](ControlPlane& plane) {
      unit = plane.HandleRequeue(request->sample_id(), request->request_id());
    }));
    ASSAY_RETURN_IF_ERROR(unit.status());
    response->mutable_unit()->set_cell_id(unit->cell_id);
    response->mutable_unit()->set_item_index(unit->item_index);
    response->mutable_unit()->set_repeat(unit->repeat);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ResultsServiceImpl::CompareCells(grpc::CallbackServerContext* context,
                                                           const v1::CompareCellsRequest* request,
                                                           v1::CompareCellsResponse* response) {
  return AnswerOnReader(*api_, context, [api = api_, request, response] {
    return Compare(*api, *request, response);
  });
}

grpc::ServerWriteReactor<v1::RunQueryResponse>* ResultsServiceImpl::RunQuery(
    grpc::CallbackServerContext* context, const v1::RunQueryRequest* request) {
  const std::shared_ptr<QueryWriter> writer = QueryWriter::Make(context);
  const bool posted = api_->readers->Post([api = api_, writer, request = *request] {
    writer->End(ToGrpc(RunQueryProcess(
        api->query_program, api->stores->path(), request,
        {.take = [&](v1::RunQueryResponse part) { return writer->Write(std::move(part)); },
         .is_waiting = [&] { return !writer->gone() && !*api->stopping; }})));
  });
  if (!posted) {
    writer->End({grpc::StatusCode::UNAVAILABLE, "too many requests wait; try again"});
  }
  return writer.get();
}

}  // namespace assay::coordinator
