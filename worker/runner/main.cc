// assay-runner: the process that holds a model. `serve` is the agent's child; the other verbs are
// for people, who reach them through `assay`, which leaves it its name.
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <iostream>

#include "base/exit_codes.h"
#include "base/flag_checks.h"
#include "base/log.h"
#include "base/usage_error.h"
#include "base/version.h"
#include "worker/runner/serve.h"
#include "worker/runner/verbs.h"

namespace assay::worker {
namespace {

// Frames have standard output to themselves: whatever else would print there goes to stderr.
int ServeOnStandardStreams(const std::string& device) {
  const int out = ::dup(STDOUT_FILENO);
  if (out < 0 || ::dup2(STDERR_FILENO, STDOUT_FILENO) < 0) return kExitFailure;
  ::signal(SIGPIPE, SIG_IGN);
  const int exit_code = ServeRunner(STDIN_FILENO, out, device);
  // A reader thread may still be waiting for input: leave without tearing down under it.
  spdlog::shutdown();
  ::_exit(exit_code);
}

void AddThreads(CLI::App* verb, int* num_threads) {
  verb->add_option("--threads", *num_threads, "threads of the engine")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
}

void AddDevice(CLI::App* verb, std::string* device) {
  verb->add_option("--device", *device, "cpu, cuda, cuda:N or a gang cuda:N,M")
      ->capture_default_str();
}

CLI::App* AddBench(CLI::App* app, BenchArguments* arguments) {
  CLI::App* bench = app->add_subcommand("bench", "measure");
  bench->require_subcommand(1);
  CLI::App* verb = bench->add_subcommand("engine", "what a model's shape reaches on a GPU");
  verb->add_option("MODEL", arguments->model_dir, "model or artifact folder")->required();
  CLI::Option* random_weights =
      verb->add_flag("--random-weights", arguments->random_weights,
                     "the folder holds config.json (and assay_quant.json) alone");
  CLI::Option* weight_bits =
      verb->add_option("--weight-bits", arguments->weight_bits, "of random weights: 16, 8, 4 or 3")
          ->needs(random_weights)
          ->check(CLI::IsMember({16, 8, 4, 3}))
          ->capture_default_str();
  verb->add_option("--gpu", arguments->devices, "number of the GPU; of several (0,1): a gang")
      ->delimiter(',')
      ->check(CLI::Range(0, 1023));
  verb->add_option("--batch", arguments->batch_sizes, "sequences of a decode step")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096));
  verb->add_option("--context", arguments->context_lens, "tokens before each")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  verb->add_option("--prefill", arguments->prefill_tokens, "tokens of a prefill step; 0: none")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24))
      ->capture_default_str();
  verb->add_option("--steps", arguments->num_steps, "timed steps of a measurement")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  CLI::Option* lengths = verb->add_option(
      "--lengths", arguments->lengths_file,
      "measure a whole job instead: a file of lines with a prompt's and an answer's tokens");
  lengths->excludes(weight_bits);
  verb->add_option("--lanes", arguments->num_lanes, "sequences that run at once")
      ->needs(lengths)
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  verb->add_option("--kv-cache-gib", arguments->kv_cache_gib, "of the KV cache; 0: what is left")
      ->needs(lengths)
      ->check(CLI::Range(0.0, 1e6));
  verb->add_option("--swap-gib", arguments->swap_gib,
                   "host memory for preempted sequences; 0: they are computed again")
      ->needs(lengths)
      ->check(CLI::Range(0.0, 1e6));
  verb->add_option("--look-ahead", arguments->look_ahead,
                   "steps launched before the one before is known: 0 or 1")
      ->needs(lengths)
      ->check(CLI::Range(0, 1));
  verb->add_option("--prompt-step-cost", arguments->prompt_step_cost,
                   "what prompts add to a step, as a share of it; 0: newcomers begin at once")
      ->needs(lengths)
      ->check(CLI::Range(0.0, 100.0));
  verb->add_flag("--json", arguments->json, "one object");
  return verb;
}

CLI::App* AddGenerate(CLI::App* app, GenerateArguments* arguments) {
  CLI::App* verb = app->add_subcommand("generate", "answer one prompt");
  verb->add_option("MODEL", arguments->model_dir, "model or artifact folder")->required();
  verb->add_option("PROMPT", arguments->prompt, "the user's turn")->required();
  verb->add_option("--system", arguments->system, "a system turn before it");
  verb->add_flag("--raw", arguments->raw, "the prompt as it stands, without the chat template");
  verb->add_flag("--json", arguments->json, "one object with text, ids, counts and timings");
  verb->add_option("--max-tokens", arguments->max_tokens, "most new tokens")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->capture_default_str();
  verb->add_option("--max-model-len", arguments->max_model_len,
                   "prompt plus answer; 0 takes the model's limit")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24));
  verb->add_option("--temperature", arguments->temperature, "0 is greedy")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  verb->add_option("--top-p", arguments->top_p, "1 is off")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  verb->add_option("--top-k", arguments->top_k, "0 is off")
      ->check(NotNegative())
      ->capture_default_str();
  verb->add_option("--seed", arguments->seed, "equal seeds give equal answers")
      ->capture_default_str();
  AddDevice(verb, &arguments->device);
  AddThreads(verb, &arguments->num_threads);
  return verb;
}

CLI::App* AddQuantize(CLI::App* app, QuantizeVerbArguments* arguments) {
  CLI::App* verb = app->add_subcommand("quantize", "make a quantized model");
  verb->add_option("MODEL", arguments->model_dir, "model folder")->required();
  verb->add_option("--method", arguments->method, "rtn, kvquant_star or quarot")->required();
  verb->add_option("--bits", arguments->bits, "weights-activations-cache, as 4-16-16");
  verb->add_option("--weight-bits", arguments->weight_bits)->check(CLI::Range(1, 16));
  verb->add_option("--activation-bits", arguments->activation_bits)->check(CLI::Range(1, 16));
  verb->add_option("--kv-bits", arguments->kv_bits)->check(CLI::Range(1, 16));
  verb->add_option("--group-size", arguments->group_size,
                   "input columns per scale; -1 per channel, 0 the method's default");
  verb->add_flag("--symmetric", arguments->symmetric, "no zero points");
  verb->add_flag("--pre-bias", arguments->pre_bias, "kvquant_star: keys before their bias");
  verb->add_option("--virtual-shards", arguments->virtual_shards, "quantize as if run on T GPUs")
      ->check(CLI::Range(1, 64));
  verb->add_option("--calibration", arguments->calibration_file,
                   "JSON lines {\"question\", \"response\"} or {\"text\"}");
  verb->add_option("--out", arguments->output_dir, "the artifact folder; must not exist")
      ->required();
  AddThreads(verb, &arguments->num_threads);
  return verb;
}

int Main(int argc, char** argv) {
  CLI::App app("Runs and quantizes models.");
  app.name(program_invocation_short_name);
  app.set_version_flag("--version", Version());
  app.require_subcommand(1);
  CLI::App* serve = app.add_subcommand("serve", "take commands on stdin (the agent)");
  std::string device = "cpu";
  AddDevice(serve, &device);
  GenerateArguments generate_arguments;
  CLI::App* generate = AddGenerate(&app, &generate_arguments);
  QuantizeVerbArguments quantize_arguments;
  CLI::App* quantize = AddQuantize(&app, &quantize_arguments);
  BenchArguments bench_arguments;
  CLI::App* bench = AddBench(&app, &bench_arguments);

  std::string model_dir;
  bool add_special_tokens = false;
  int num_threads = 1;
  CLI::App* tokenize =
      app.add_subcommand("tokenize", "JSON lines {\"text\"} on stdin, {\"ids\"} on stdout");
  tokenize->add_option("MODEL", model_dir, "folder with the tokenizer's files")->required();
  tokenize->add_flag("--special", add_special_tokens, "add BOS and the like");
  CLI::App* score =
      app.add_subcommand("score", "JSON lines {\"ids\"} on stdin, {\"target_logprobs\"} on stdout");
  score->add_option("MODEL", model_dir, "model or artifact folder")->required();
  AddDevice(score, &device);
  AddThreads(score, &num_threads);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return EndParsing(app, error, argc, argv);
  }
  InitLogging("assay-runner", *serve ? "info" : "error");
  if (*serve) return ServeOnStandardStreams(device);
  std::ios::sync_with_stdio(false);
  if (*generate) return Generate(generate_arguments, std::cout);
  if (*bench) return Bench(bench_arguments, std::cout);
  if (*quantize) return QuantizeVerb(quantize_arguments, std::cout);
  if (*tokenize) return Tokenize(model_dir, add_special_tokens, std::cin, std::cout);
  return Score(model_dir, device, num_threads, std::cin, std::cout);
}

}  // namespace
}  // namespace assay::worker

int main(int argc, char** argv) { return assay::worker::Main(argc, argv); }
