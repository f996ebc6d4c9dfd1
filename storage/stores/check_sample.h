// What a sample from the wire must look like before it may go near the database.
#pragma once

#include <absl/status/status.h>

#include "storage/stores/records.h"

namespace assay::storage {

// INVALID_ARGUMENT naming the unit, the field, its value and the limit: sizes of texts, a prompt
// hash of 32 bytes, counts and spans that are not negative, known enum values, finite numbers.
// Texts are not unpacked.
absl::Status CheckSample(const SampleRecord& sample);
absl::Status CheckGrade(const GradeRecord& grade);

}  // namespace assay::storage
