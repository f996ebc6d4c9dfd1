#include "engine/quant/quantize.h"

#include <cstring>
#include <filesystem>

#include "base/file.h"
#include "engine/model/config.h"
#include "engine/model/linears.h"
#include "engine/quant/cache_quantizer.h"
#include "engine/quant/description.h"
#include "engine/quant/packed_linear.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/quant/memory_checkpoint.h"
#include "tests/unit/engine/quant/numbers.h"

namespace assay::engine {
namespace {

namespace fs = std::filesystem;
using testing::IsError;
using testing::kNoShared;
using testing::SharedPath;
using testing::TemporaryDirectory;

// float32 to BF16 by cutting: any value of the format will do.
std::string BFloat16(const std::vector<float>& values) {
  std::string bytes;
  for (const float value : values) {
    char parts[4];
    std::memcpy(parts, &value, 4);
    bytes.append(parts + 2, 2);
  }
  return bytes;
}

// A model of two layers whose widths no group divides, in a folder.
class QuantizeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    model_ = folder_ / "model";
    ASSERT_OK(MakeDirectories(model_));
    WriteConfig("Qwen2");
    ASSERT_OK(WriteFileAtomically(model_ + "/tokenizer.json", "{\"tokenizer\": 1}"));
    ASSERT_OK(WriteFileAtomically(model_ + "/unrelated.bin", "x"));
    ASSERT_OK_AND_ASSIGN(config_, LoadModelConfig(model_));
    std::vector<TensorToWrite> tensors;
    uint32_t seed = 1;
    const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
      int64_t size = 1;
      for (const int64_t extent : shape) size *= extent;
      tensors.push_back({.name = name,
                         .dtype = DType::kBF16,
                         .shape = std::move(shape),
                         .bytes = BFloat16(RandomValues(static_cast<size_t>(size), seed++))});
    };
    add("model.embed_tokens.weight", {50, 40});
    for (const LinearInfo& linear : QuantizableLinears(config_)) {
      add(linear.name + ".weight", {linear.out_features, linear.in_features});
      if (linear.has_bias) add(linear.name + ".bias", {linear.out_features});
    }
    ASSERT_OK(WriteSafetensors(model_ + "/model.safetensors", tensors));
    ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(model_));
  }

  void WriteConfig(const std::string& family) {
    ASSERT_OK(WriteFileAtomically(
        model_ + "/config.json",
        R"({"architectures": [")" + family +
            R"(ForCausalLM"], "hidden_size": 40, "intermediate_size": 72, "num_hidden_layers": 2,
               "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
               "vocab_size": 50, "max_position_embeddings": 64})"));
  }

  QuantizeRequest Request(const MethodSpec& method, const std::string& output) {
    return {.model_dir = model_,
            .output_dir = folder_ / output,
            .method = method,
            .provenance = {{"git_commit", "abc"}}};
  }

  std::vector<float> Weight(const LinearInfo& linear) {
    const int64_t shape[] = {linear.out_features, linear.in_features};
    return *checkpoint_->ReadFloats(linear.name + ".weight", shape);
  }

  TemporaryDirectory folder_;
  std::string model_;
  ModelConfig config_;
  std::unique_ptr<Checkpoint> checkpoint_;
};

TEST_F(QuantizeTest, RtnPutsEveryWeightOnItsGroupsGrid) {
  for (const int bits : {2, 3, 4, 8}) {
    SCOPED_TRACE(bits);
    const std::string name = fmt::format("w{}", bits);
    ASSERT_OK(Quantize(
        Request({.method = "rtn", .bits = fmt::format("{}-16-16", bits), .group_size = 32}, name)));
    ASSERT_OK_AND_ASSIGN(const auto artifact, Checkpoint::Open(folder_ / name));
    ASSERT_OK_AND_ASSIGN(const QuantDescription description, LoadDescription(folder_ / name));
    ASSERT_OK(CheckFits(description, config_));
    EXPECT_EQ(description.linears.size(), 14u);
    for (const LinearInfo& linear : QuantizableLinears(config_)) {
      ASSERT_OK_AND_ASSIGN(
          const auto decoded,
          DecodeLinearWeight(*artifact, linear.name, description.linears.at(linear.name),
                             linear.out_features, linear.in_features));
      std::vector<float> expected = Weight(linear);
      for (int row = 0; row < linear.out_features; ++row) {
        for (int at = 0; at < linear.in_features; at += 32) {
          const int64_t begin = int64_t{row} * linear.in_features + at;
          RoundToOwnGrid(std::span(expected).subspan(
                             static_cast<size_t>(begin),
                             static_cast<size_t>(std::min(32, linear.in_features - at))),
                         {.bit_width = bits, .min_range = 1e-5f});
        }
      }
      EXPECT_EQ(decoded, expected) << linear.name;
      EXPECT_FALSE(artifact->Contains(linear.name + ".weight"));
    }
  }
}

TEST_F(QuantizeTest, TensorsThatAreNotQuantizedStayAsTheyAre) {
  ASSERT_OK(Quantize(Request({.method = "rtn", .bits = "4-16-16"}, "out")));
  ASSERT_OK_AND_ASSIGN(const auto artifact, Checkpoint::Open(folder_ / "out"));
  for (const std::string name :
       {"model.embed_tokens.weight", "model.layers.1.self_attn.k_proj.bias"}) {
    ASSERT_OK_AND_ASSIGN(const TensorView before, checkpoint_->Find(name));
    ASSERT_OK_AND_ASSIGN(const TensorView after, artifact->Find(name));
    EXPECT_EQ(after.dtype, DType::kBF16);
    EXPECT_TRUE(std::ranges::equal(before.bytes, after.bytes));
  }
}

TEST_F(QuantizeTest, TheArtifactIsACompleteModelFolder) {
  ASSERT_OK(Quantize(Request({.method = "rtn", .bits = "4-16-16"}, "out/below")));
  const std::string out = folder_ / "out/below";
  EXPECT_TRUE(fs::exists(out + "/tokenizer.json"));
  EXPECT_FALSE(fs::exists(out + "/unrelated.bin"));
  EXPECT_OK(LoadModelConfig(out));
  ASSERT_OK_AND_ASSIGN(const QuantDescription description, LoadDescription(out));
  EXPECT_EQ(description.method, "rtn");
  EXPECT_EQ(description.bits, "4-16-16");
  EXPECT_EQ(description.parameters.at("group_size"), "128");
  EXPECT_EQ(description.parameters.at("symmetric"), "false");
  EXPECT_EQ(description.provenance.at("git_commit"), "abc");
}

TEST_F(QuantizeTest, EqualRequestsGiveEqualBytes) {
  for (const char* name : {"one", "two"}) {
    ASSERT_OK(Quantize(Request({.method = "rtn", .bits = "3-16-16"}, name)));
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_ / "one")) {
    const std::string name = entry.path().filename().string();
    ASSERT_OK_AND_ASSIGN(const std::string one, ReadFile(folder_ / ("one/" + name)));
    ASSERT_OK_AND_ASSIGN(const std::string two, ReadFile(folder_ / ("two/" + name)));
    EXPECT_EQ(one, two) << name;
  }
}

// 16 bits are no quantization.
TEST_F(QuantizeTest, Bf16IsTheModelItself) {
  ASSERT_OK(Quantize(Request({.method = "bf16"}, "out")));
  ASSERT_OK_AND_ASSIGN(const QuantDescription description, LoadDescription(folder_ / "out"));
  EXPECT_FALSE(description.quantizes_anything());
  ASSERT_OK_AND_ASSIGN(const auto artifact, Checkpoint::Open(folder_ / "out"));
  EXPECT_EQ(artifact->names(), checkpoint_->names());
  for (const std::string& name : artifact->names()) {
    ASSERT_OK_AND_ASSIGN(const TensorView before, checkpoint_->Find(name));
    ASSERT_OK_AND_ASSIGN(const TensorView after, artifact->Find(name));
    EXPECT_TRUE(std::ranges::equal(before.bytes, after.bytes)) << name;
  }
}

TEST_F(QuantizeTest, OnlySplitLinearsHaveAScalePerShard) {
  ASSERT_OK(Quantize(Request({.method = "rtn",
                              .bits = "4-16-16",
                              .group_size = -1,
                              .symmetric = true,
                              .virtual_shards = 4},
                             "out")));
  ASSERT_OK_AND_ASSIGN(const auto artifact, Checkpoint::Open(folder_ / "out"));
  const auto scale_shape = [&](const std::string& linear) {
    return artifact->Find("model.layers.0." + linear + ".scale")->shape;
  };
  EXPECT_EQ(scale_shape("self_attn.o_proj"), (std::vector<int64_t>{40, 4}));
  EXPECT_EQ(scale_shape("mlp.down_proj"), (std::vector<int64_t>{40, 4}));
  EXPECT_EQ(scale_shape("self_attn.q_proj"), (std::vector<int64_t>{64, 1}));
  EXPECT_FALSE(artifact->Contains("model.layers.0.mlp.down_proj.zero"));
  EXPECT_THAT(
      Quantize(Request({.method = "rtn", .bits = "4-16-16", .group_size = -1, .virtual_shards = 7},
                       "none")),
      IsError(absl::StatusCode::kInvalidArgument, "64 inputs do not divide over"));
}

// Keys of two documents, the values of channel c of layer l being known.
TEST_F(QuantizeTest, KvquantStarTakesEachChannelsRangeOverAllTokens) {
  for (const bool pre_bias : {false, true}) {
    SCOPED_TRACE(pre_bias);
    const std::string name = pre_bias ? "pre" : "post";
    QuantizeRequest request =
        Request({.method = "kvquant_star", .bits = "16-16-4", .pre_bias = pre_bias}, name);
    request.calibration_ids = {{1, 2, 3}, {}, {4}};
    std::vector<std::vector<float>> seen(2);  // by layer: [tokens, 32]
    uint32_t seed = 100;
    request.forward = [&](const std::vector<int32_t>& ids, ForwardObserver* observer) {
      for (int layer = 0; layer < 2; ++layer) {
        std::vector<float> keys = RandomValues(ids.size() * 32, seed++);
        for (size_t i = 0; i < keys.size(); ++i) keys[i] += i % 32 == 5 ? 140.0f : 0.0f;
        observer->OnKeysBeforeRope(layer, static_cast<int>(ids.size()), keys);
        auto& all = seen[static_cast<size_t>(layer)];
        all.insert(all.end(), keys.begin(), keys.end());
      }
      return absl::OkStatus();
    };
    ASSERT_OK(Quantize(request));
    ASSERT_EQ(seen[0].size(), 4u * 32);

    ASSERT_OK_AND_ASSIGN(const QuantDescription description, LoadDescription(folder_ / name));
    EXPECT_EQ(description.k_cache.granularity, CacheSpec::Granularity::kPerChannelStatic);
    EXPECT_EQ(description.k_cache.position,
              pre_bias ? CacheSpec::Position::kBeforeBias : CacheSpec::Position::kBeforeRope);
    EXPECT_EQ(description.v_cache.clip_ratio, 1);
    EXPECT_EQ(description.parameters.at("pre_bias"), pre_bias ? "true" : "false");
    ASSERT_OK_AND_ASSIGN(const auto artifact, Checkpoint::Open(folder_ / name));
    const int64_t table_shape[] = {2, 16};
    const int64_t bias_shape[] = {32};
    for (int layer = 0; layer < 2; ++layer) {
      const std::string prefix = fmt::format("model.layers.{}.self_attn.", layer);
      ASSERT_OK_AND_ASSIGN(const auto bias,
                           checkpoint_->ReadFloats(prefix + "k_proj.bias", bias_shape));
      ASSERT_OK_AND_ASSIGN(const auto scale,
                           artifact->ReadFloats(prefix + "k_cache.scale", table_shape));
      ASSERT_OK_AND_ASSIGN(const TensorView zero, artifact->Find(prefix + "k_cache.zero"));
      for (size_t channel = 0; channel < 32; ++channel) {
        float min = 0;
        float max = 0;
        for (size_t at = channel; at < 4 * 32; at += 32) {
          const float key =
              seen[static_cast<size_t>(layer)][at] - (pre_bias ? bias[channel] : 0.0f);
          min = std::min(min, key);
          max = std::max(max, key);
        }
        EXPECT_FLOAT_EQ(scale[channel], (max - min) / 15);
        EXPECT_EQ(static_cast<float>(zero.bytes[channel]), std::nearbyint(-min / scale[channel]));
      }
      EXPECT_OK(CacheQuantizer::Load(*artifact, layer, description.k_cache, 2, 16, true));
    }
    // The weights are the model's.
    EXPECT_TRUE(artifact->Contains("model.layers.0.self_attn.q_proj.weight"));
    EXPECT_TRUE(description.linears.empty());
  }
}

TEST_F(QuantizeTest, PreBiasOfAModelWithoutBiasIsAcceptedAndRecorded) {
  WriteConfig("Llama");
  QuantizeRequest request =
      Request({.method = "kvquant_star", .bits = "16-16-3", .pre_bias = true}, "out");
  request.calibration_ids = {{1}};
  request.forward = [](const std::vector<int32_t>&, ForwardObserver* observer) {
    for (int layer = 0; layer < 2; ++layer) {
      observer->OnKeysBeforeRope(layer, 1, RandomValues(32, 1));
    }
    return absl::OkStatus();
  };
  ASSERT_OK(Quantize(request));
  ASSERT_OK_AND_ASSIGN(const QuantDescription description, LoadDescription(folder_ / "out"));
  EXPECT_EQ(description.parameters.at("pre_bias"), "true");
  EXPECT_EQ(description.k_cache.position, CacheSpec::Position::kBeforeRope);
}

TEST_F(QuantizeTest, CalibrationThatShowsNothingIsRefused) {
  QuantizeRequest request = Request({.method = "kvquant_star", .bits = "16-16-4"}, "out");
  EXPECT_THAT(Quantize(request),
              IsError(absl::StatusCode::kInvalidArgument, "needs calibration texts"));
  request.calibration_ids = {{}};
  request.forward = [](const std::vector<int32_t>&, ForwardObserver*) { return absl::OkStatus(); };
  EXPECT_THAT(Quantize(request), IsError(absl::StatusCode::kInvalidArgument, "no token was seen"));
  request.calibration_ids = {{1}};
  request.forward = [](const std::vector<int32_t>&, ForwardObserver*) {
    return Internal("the forward pass failed");
  };
  EXPECT_THAT(Quantize(request), IsError(absl::StatusCode::kInternal, "the forward pass failed"));
  request.forward = [](const std::vector<int32_t>&, ForwardObserver* observer) {
    observer->OnKeysBeforeRope(0, 1, std::vector<float>(32, std::nanf("")));
    return absl::OkStatus();
  };
  EXPECT_THAT(Quantize(request), IsError(absl::StatusCode::kInvalidArgument, "not finite"));
  EXPECT_FALSE(fs::exists(folder_ / "out"));
}

TEST_F(QuantizeTest, QuarotRotatesKeysAndNotValues) {
  ASSERT_OK(Quantize(Request(
      {.method = "quarot", .bits = "16-16-4", .parameters = {{"v_clip_ratio", "0.9"}}}, "out")));
  ASSERT_OK_AND_ASSIGN(const QuantDescription description, LoadDescription(folder_ / "out"));
  EXPECT_EQ(description.k_cache.transform, CacheSpec::Transform::kHadamard);
  EXPECT_EQ(description.k_cache.position, CacheSpec::Position::kAfterRope);
  EXPECT_EQ(description.k_cache.clip_ratio, 0.95f);
  EXPECT_EQ(description.v_cache.transform, CacheSpec::Transform::kNone);
  EXPECT_EQ(description.v_cache.clip_ratio, 0.9f);
  EXPECT_TRUE(description.linears.empty());
}

TEST_F(QuantizeTest, AnOutputThatExistsIsLeftAlone) {
  ASSERT_OK(MakeDirectories(folder_ / "out"));
  EXPECT_THAT(Quantize(Request({.method = "bf16"}, "out")),
              IsError(absl::StatusCode::kAlreadyExists, "out"));
  EXPECT_TRUE(fs::is_empty(folder_ / "out"));
}

TEST_F(QuantizeTest, AFailureLeavesNothingBehind) {
  fs::remove(model_ + "/model.safetensors");
  ASSERT_OK(WriteSafetensors(model_ + "/model.safetensors",
                             {{.name = "a", .dtype = DType::kU8, .shape = {1}, .bytes = "x"}}));
  EXPECT_THAT(Quantize(Request({.method = "rtn", .bits = "4-16-16"}, "out")),
              IsError(absl::StatusCode::kNotFound, "model.layers.0.self_attn.q_proj.weight"));
  // A folder in the place of a file makes writing fail when the temporary folder is there already.
  ASSERT_OK(MakeDirectories(model_ + "/vocab.json"));
  EXPECT_THAT(Quantize(Request({.method = "bf16"}, "out")),
              IsError(absl::StatusCode::kInvalidArgument, "vocab.json"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), {}), 1);
}

TEST_F(QuantizeTest, AnArtifactIsNotQuantizedAgain) {
  ASSERT_OK(Quantize(Request({.method = "rtn", .bits = "4-16-16"}, "one")));
  QuantizeRequest again = Request({.method = "rtn", .bits = "4-16-16"}, "two");
  again.model_dir = folder_ / "one";
  EXPECT_THAT(Quantize(again), IsError(absl::StatusCode::kInvalidArgument, "artifact already"));
}

TEST_F(QuantizeTest, DamagedWeightsAreRefused) {
  std::vector<TensorToWrite> tensors;
  for (const std::string& name : checkpoint_->names()) {
    ASSERT_OK_AND_ASSIGN(const TensorView tensor, checkpoint_->Find(name));
    tensors.push_back(
        {.name = name, .dtype = tensor.dtype, .shape = tensor.shape, .view = tensor.bytes});
    if (name == "model.layers.1.mlp.up_proj.weight") {
      tensors.back().bytes.assign(tensor.bytes.size(), '\x7f');  // 0x7f7f is finite
      tensors.back().bytes[1] = '\x7f';
      tensors.back().bytes[0] = '\xff';  // 0x7fff: NaN
    }
  }
  ASSERT_OK(WriteSafetensors(model_ + "/damaged", tensors));
  fs::rename(model_ + "/damaged", model_ + "/model.safetensors");
  EXPECT_THAT(Quantize(Request({.method = "rtn", .bits = "4-16-16"}, "out")),
              IsError(absl::StatusCode::kInvalidArgument, "mlp.up_proj.weight: a value is"));
}

TEST(QuantizeTinyModelTest, FourBitsLieWithinHalfAStepOfEveryWeight) {
  const std::string model = SharedPath("models/tiny-qwen2-1m");
  if (model.empty()) GTEST_SKIP() << kNoShared;
  const TemporaryDirectory folder;
  ASSERT_OK(Quantize({.model_dir = model,
                      .output_dir = folder / "out",
                      .method = {.method = "rtn", .bits = "4-16-16"}}));
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, LoadModelConfig(model));
  ASSERT_OK_AND_ASSIGN(const auto before, Checkpoint::Open(model));
  ASSERT_OK_AND_ASSIGN(const auto after, Checkpoint::Open(folder / "out"));
  ASSERT_OK_AND_ASSIGN(const QuantDescription description, LoadDescription(folder / "out"));
  for (const LinearInfo& linear : QuantizableLinears(config)) {
    const int64_t shape[] = {linear.out_features, linear.in_features};
    const LinearSpec& spec = description.linears.at(linear.name);
    ASSERT_OK_AND_ASSIGN(const auto weight, before->ReadFloats(linear.name + ".weight", shape));
    ASSERT_OK_AND_ASSIGN(
        const auto decoded,
        DecodeLinearWeight(*after, linear.name, spec, linear.out_features, linear.in_features));
    const int64_t scale_shape[] = {linear.out_features, NumGroups(spec, linear.in_features)};
    ASSERT_OK_AND_ASSIGN(const auto scale, after->ReadFloats(linear.name + ".scale", scale_shape));
    for (size_t i = 0; i < weight.size(); ++i) {
      const size_t group = i / 128;  // every width of this model is a multiple of 128
      ASSERT_LE(std::fabs(weight[i] - decoded[i]), 0.5f * scale[group] * 1.001f) << linear.name;
    }
  }
}

}  // namespace
}  // namespace assay::engine
