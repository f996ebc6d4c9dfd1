// Content keys: SHA-256 over everything that decides a result, and nothing
// else. Equal keys are equal work; a change of meaning must change the key.
#pragma once

#include <string>

#include "storage/stores/records.h"

namespace assay::coordinator {

// Of a quantized model: the model's content, the method with every parameter, the content of its
// calibration set (not its name), the quantizer's version.
std::string ArtifactKey(const std::string& model_hash, const storage::MethodRecord& method,
                        const std::string& calibration_hash, const std::string& quantizer_version);

// Of a cell: what is run (`artifact_key`, or when empty the model as it is), on which items and
// prompts, how it is sampled, and on which arithmetic.
std::string CellKey(const std::string& model_hash, const std::string& artifact_key,
                    const storage::BenchmarkRecord& benchmark,
                    const storage::SamplingRecord& sampling, int tensor_parallel_size,
                    const std::string& engine_numerics_version);

}  // namespace assay::coordinator
