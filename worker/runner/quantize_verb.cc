#include <filesystem>
#include <ostream>

#include "base/exit_codes.h"
#include "base/file.h"
#include "base/status.h"
#include "worker/runner/quantize_model.h"
#include "worker/runner/verb_errors.h"
#include "worker/runner/verbs.h"

namespace assay::worker {
namespace {

constexpr int64_t kMaxCalibrationBytes = int64_t{64} << 20;

absl::StatusOr<std::string> BitsOf(const QuantizeVerbArguments& arguments) {
  const bool separate =
      arguments.weight_bits > 0 || arguments.activation_bits > 0 || arguments.kv_bits > 0;
  if (!arguments.bits.empty()) {
    if (separate) {
      return InvalidArgument(
          "give either --bits or --weight-bits, --activation-bits and --kv-bits, not both");
    }
    return arguments.bits;
  }
  if (!separate) return InvalidArgument("give --bits W-A-KV, as 4-16-16, or --weight-bits N");
  const auto or_16 = [](int bits) { return bits > 0 ? bits : 16; };
  return fmt::format("{}-{}-{}", or_16(arguments.weight_bits), or_16(arguments.activation_bits),
                     or_16(arguments.kv_bits));
}

absl::Status QuantizeOrError(const QuantizeVerbArguments& arguments, std::ostream& out) {
  ASSAY_RETURN_IF_ERROR(CheckModelFolder(arguments.model_dir, "config.json"));
  if (std::filesystem::exists(arguments.output_dir)) {
    return AlreadyExists("{}: exists; give --out a folder that does not", arguments.output_dir);
  }
  QuantizeArguments quantize;
  quantize.model_dir = arguments.model_dir;
  quantize.output_dir = arguments.output_dir;
  quantize.num_threads = arguments.num_threads;
  quantize.method.method = arguments.method;
  ASSAY_ASSIGN_OR_RETURN(quantize.method.bits, BitsOf(arguments));
  quantize.method.group_size = arguments.group_size;
  quantize.method.symmetric = arguments.symmetric;
  quantize.method.pre_bias = arguments.pre_bias;
  quantize.method.virtual_shards = arguments.virtual_shards;
  if (!arguments.calibration_file.empty()) {
    quantize.calibration_name = arguments.calibration_file;
    ASSAY_ASSIGN_OR_RETURN(quantize.calibration_jsonl,
                           ReadFile(arguments.calibration_file, kMaxCalibrationBytes));
  }
  ASSAY_RETURN_IF_ERROR(QuantizeModelFolder(quantize));
  out << arguments.output_dir << "\n";
  return absl::OkStatus();
}

}  // namespace

int QuantizeVerb(const QuantizeVerbArguments& arguments, std::ostream& out) {
  const absl::Status status = QuantizeOrError(arguments, out);
  return status.ok() ? kExitOk : FailVerb(status);
}

}  // namespace assay::worker
