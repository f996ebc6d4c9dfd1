// The parts of a spec that stand alone: benchmarks, sampling, the stop rule. Each function reads
// one node, reports what is wrong with it, and returns what it understood.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "coordinator/spec/spec_reader.h"
#include "coordinator/spec/sweep_spec.h"

namespace assay::coordinator {

inline constexpr size_t kMaxBenchmarks = 100;

// A name that is shown in tables and looked up in folders: one line of at most 200 bytes. Empty
// when absent or wrong (reported).
std::string ReadName(const YamlNode* node, std::string_view what, SpecErrors* errors);

// The key `path`: one line without a step to a parent folder.
std::string ReadPath(MappingReader* reader, std::string_view what, SpecErrors* errors);

bool HasParentStep(std::string_view path);

// A list of benchmarks under the key `benchmarks`, what the registry knows filled in.
std::vector<BenchmarkSpec> ReadBenchmarks(MappingReader* reader, SpecErrors* errors);

// `node` is null when the key is absent: the defaults then.
void ReadSampling(const YamlNode* node, SweepSpec* spec, SpecErrors* errors);

// Only the rule `fixed` exists so far.
void CheckStop(const YamlNode* node, SpecErrors* errors);

}  // namespace assay::coordinator
