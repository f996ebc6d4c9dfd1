// How a sample, and two samples side by side, read. Pure functions; what comes from a model or a
// dataset is sanitised here.
#pragma once

#include <cstdint>
#include <string>

#include "assay/v1/results_service.pb.h"
#include "cli/output/style.h"
#include "cli/output/table.h"

namespace assay::cli {

namespace v1 = ::assay::v1;

// "correct", "wrong", "no answer", "grader error"; "ungraded" without a verdict.
std::string VerdictText(const v1::Grade& grade);
Colour ColourOfVerdict(const v1::Grade& grade);

// "stop", "length", ...
std::string FinishText(v1::FinishReason reason);

// Metadata only, one sample a row.
Table SampleTable(const google::protobuf::RepeatedPtrField<v1::SampleSummary>& samples);

// Everything about a sample: facts, question, prompt, answer.
std::string SampleText(const v1::GetSampleResponse& sample, const Style& style);

// Two samples of one item: verdicts and lengths, where they part, and the texts from there on, side
// by side when `width` columns (0: unlimited) leave room for two readable halves, else one after
// another.
std::string DiffText(const v1::GetSampleResponse& left, const v1::GetSampleResponse& right,
                     int width, const Style& style);

// The position of the first generated token in which the two differ; -1 when they are equal.
int64_t FirstDifferentToken(const v1::GetSampleResponse& left, const v1::GetSampleResponse& right);

}  // namespace assay::cli
