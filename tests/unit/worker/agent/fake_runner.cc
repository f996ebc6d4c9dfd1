// A runner without a model, for tests of the agent: it speaks the frames of runner.proto and
// misbehaves when a unit's text says so.
//
//   "ok N"       answers "\boxed{N}" at once
//   "hold"       runs until it is cancelled
//   "freeze"     stops the process, as a signal or a hung driver would
//   "die"        kills the process
//   "fault"      says that its device failed, and ends
//   "garbage"    writes bytes that are no frame
//   "huge"       answers with more than a report holds
//   "refuse"     fails the unit
//
// A model folder with a file named "dies_on_load" kills it, one with "cannot_load" fails to load,
// and one with "loads_for_long" loads until that file is gone.
// Started programs append their process id to $FAKE_RUNNER_PIDS when that is set.
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include "assay/v1/runner.pb.h"
#include "storage/text/text_codec.h"
#include "worker/wire/frame.h"

namespace assay::worker {
namespace {

constexpr int kOut = STDOUT_FILENO;

void Send(const v1::RunnerEvent& event) {
  if (!WriteFrame(kOut, event).ok()) ::_exit(1);
}

[[noreturn]] void Die() {
  ::kill(::getpid(), SIGKILL);
  std::abort();
}

void SendProgress(int64_t num_tokens) {
  v1::RunnerEvent event;
  event.mutable_progress()->set_tokens_generated(num_tokens);
  event.mutable_progress()->set_tokens_per_s(10);
  Send(event);
}

void Answer(const v1::RunnerUnit& unit, const std::string& text) {
  v1::RunnerEvent event;
  v1::Sample* sample = event.mutable_unit_done()->mutable_sample();
  *sample->mutable_unit() = unit.key();
  sample->set_epoch(unit.epoch());
  sample->set_seed(unit.seed());
  sample->set_text_zstd(storage::CompressText(text));
  sample->set_completion_tokens(7);
  sample->set_finish_reason(v1::FINISH_REASON_STOP);
  Send(event);
}

// Bytes that do not compress.
std::string Noise(size_t size) {
  std::mt19937 random(1);
  std::string noise(size, '\0');
  for (char& c : noise) c = static_cast<char>(random());
  return noise;
}

void Run(const v1::RunnerUnit& unit) {
  const std::string& text = unit.user_text();
  if (text.starts_with("ok ")) {
    Answer(unit, "so \\boxed{" + text.substr(3) + "}");
  } else if (text == "freeze") {
    ::kill(::getpid(), SIGSTOP);
  } else if (text == "die") {
    Die();
  } else if (text == "fault") {
    v1::RunnerEvent event;
    event.mutable_fatal()->set_message("CUDA: an illegal memory access was encountered");
    Send(event);
    ::_exit(1);
  } else if (text == "garbage") {
    const std::string garbage = "HTTP/1.1 400 Bad Request\r\n\r\n";
    if (::write(kOut, garbage.data(), garbage.size()) < 0) ::_exit(1);
  } else if (text == "huge") {
    Answer(unit, Noise(3 << 20));
  } else if (text == "refuse") {
    v1::RunnerEvent event;
    *event.mutable_unit_failed()->mutable_key() = unit.key();
    event.mutable_unit_failed()->set_message("no chat template");
    Send(event);
  }
}

void Load(const v1::LoadModel& load) {
  const std::filesystem::path folder = load.model_dir();
  if (std::filesystem::exists(folder / "dies_on_load")) Die();
  while (std::filesystem::exists(folder / "loads_for_long")) ::usleep(1000);
  v1::RunnerEvent event;
  if (std::filesystem::exists(folder / "cannot_load")) {
    event.mutable_load_failed()->set_message("tensor x has a wrong shape");
  } else {
    event.mutable_loaded()->set_max_num_seqs(load.max_num_seqs());
  }
  Send(event);
}

void Quantize(const v1::QuantizeModel& quantize) {
  v1::RunnerEvent event;
  if (quantize.method().bits() == "die") Die();
  if (quantize.method().bits() == "freeze") ::kill(::getpid(), SIGSTOP);
  if (quantize.method().bits() == "fail") {
    event.mutable_quantize_failed()->set_message("bits 'fail' are unknown");
  } else if (quantize.method().bits() == "full") {
    event.mutable_quantize_failed()->set_message("the disk is full");
    event.mutable_quantize_failed()->set_infrastructure(true);
  } else {
    std::filesystem::create_directory(quantize.output_dir());
    std::ofstream(quantize.output_dir() + "/config.json") << "{}";
    event.mutable_quantized();
  }
  Send(event);
}

// "fake", or "fake cuda:0,1 of GPU-a,GPU-b".
std::string DeviceName(const std::string& device) {
  if (device == "cpu") return "fake";
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return "fake " + device + " of " + (visible != nullptr ? visible : "all");
}

int Main(const std::string& device) {
  if (const char* pids = std::getenv("FAKE_RUNNER_PIDS"); pids != nullptr) {
    std::ofstream(pids, std::ios::app) << ::getpid() << "\n";
  }
  v1::RunnerEvent started;
  started.mutable_started()->mutable_provenance()->set_device(DeviceName(device));
  Send(started);
  int64_t num_tokens = 0;
  v1::RunnerCommand command;
  while (true) {
    const absl::StatusOr<bool> received = ReadFrame(STDIN_FILENO, &command);
    if (!received.ok() || !*received) return 0;
    if (command.has_load()) Load(command.load());
    if (command.has_quantize()) Quantize(command.quantize());
    if (command.has_cancel()) SendProgress(num_tokens);
    if (!command.has_submit()) continue;
    for (const v1::RunnerUnit& unit : command.submit().units()) Run(unit);
    SendProgress(++num_tokens);
  }
}

}  // namespace
}  // namespace assay::worker

// serve --device DEVICE, as the agent calls it.
int main(int argc, char** argv) { return assay::worker::Main(argc > 3 ? argv[3] : "cpu"); }
