"""Assay's engine against Hugging Face transformers: the same weights, the same token ids.

    python3 compare_with_transformers.py ENGINE_PROBE [--device cuda:0] [--only NAME,...] [--out DIR]
                                         [--work DIR]

Models: the two of examples/ with problems of arith500, and random weights in the true shapes of the
study's models (and of two Qwen3), cut to a few layers, with random ids. Caches: 16 bits, and per shape
some quantized ones, simulated on top of transformers as methods.md says. ENGINE_PROBE is the program
that tests/golden/engine_probe.cc becomes.

The judge is transformers in float32. How far bf16 may be from it says transformers in bf16, run on the
same ids: the engine must not be much further away. Greedy tokens are compared by regret: how much less
likely than the best token, by float32 given the same predecessors, a chosen token is. Exit code 1 when
something is outside the bounds below. With --out, DIR/<model>.jsonl holds what float32 says, a line a
sequence: prompt_ids, full_ids, target_logprobs, last_top8_ids, greedy_ids; and DIR/comparison.json all
figures.

Nothing here shares code with Assay. Needs torch, transformers and a GPU; writes up to 5 GB to --work.
"""
import argparse
import dataclasses
import json
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
import transformers.models.llama.modeling_llama as modeling_llama
import transformers.models.qwen2.modeling_qwen2 as modeling_qwen2
import transformers.models.qwen3.modeling_qwen3 as modeling_qwen3

from make_quantized_reference import hadamard, prompt_of, round_asymmetric

torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
GPU = "cuda:0"
EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"

# The engine's error over that of transformers in bf16. Both are samples of the same rounding; the
# largest of a few thousand errors scatters more than their mean square.
MOST_RMS_RATIO = 1.5
MOST_MAX_RATIO = 2.0
# A token that bf16 takes for the best is worse by no more than the errors of two logits, each at most
# what transformers in bf16 shows anywhere in the vocabulary, with the same room for chance.
MOST_REGRET_RATIO = 2 * 1.5

LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}


@dataclasses.dataclass(frozen=True)
class Cache:
    """none; quarot: Hadamard after RoPE, per token; kvquant: keys static per channel before RoPE."""
    method: str = "none"
    bits: int = 16
    pre_bias: bool = False

    def __str__(self):
        if self.method == "none":
            return "KV16"
        return f"KV{self.bits} {self.method}" + (" pre-bias" if self.pre_bias else "")


KV16 = Cache()


def quarot(bits):
    return Cache("quarot", bits)


def kvquant(bits, pre_bias=False):
    return Cache("kvquant", bits, pre_bias)


@dataclasses.dataclass(frozen=True)
class Shape:
    """A shape of models.md §1; num_layers and vocab_size are what is left of them here."""
    name: str
    family: str
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    intermediate_size: int
    vocab_size: int
    num_layers: int
    rope_theta: float
    eps: float
    tied: bool = False
    caches: tuple = (KV16,)

    def config(self):
        config = {
            "architectures": [f"{self.family}ForCausalLM"], "model_type": self.family.lower(),
            "hidden_size": self.hidden_size, "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers, "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads, "head_dim": 128, "vocab_size": self.vocab_size,
            "rms_norm_eps": self.eps, "rope_theta": self.rope_theta, "hidden_act": "silu",
            "max_position_embeddings": 131072, "tie_word_embeddings": self.tied,
            "use_sliding_window": False, "attention_bias": False, "torch_dtype": "bfloat16",
            "bos_token_id": 1, "eos_token_id": 0}
        if self.family == "Llama":
            config["rope_scaling"] = LLAMA3_ROPE
        return config


SHAPES = [
    Shape("qwen-1.5b", "Qwen2", 1536, 12, 2, 8960, 151936, 4, 10000.0, 1e-6,
          caches=(KV16, kvquant(4, True), kvquant(3, True))),
    Shape("qwen-7b", "Qwen2", 3584, 28, 4, 18944, 32768, 3, 10000.0, 1e-6,
          caches=(KV16, quarot(8), kvquant(4, True))),
    Shape("qwen-14b", "Qwen2", 5120, 40, 8, 13824, 32768, 2, 1000000.0, 1e-5,
          caches=(KV16, kvquant(4))),
    Shape("qwen-32b and qwq-32b", "Qwen2", 5120, 40, 8, 27648, 32768, 2, 1000000.0, 1e-5),
    Shape("llama-8b", "Llama", 4096, 32, 8, 14336, 128256, 3, 500000.0, 1e-5,
          caches=(KV16, quarot(8), quarot(4), quarot(3))),
    Shape("llama-70b", "Llama", 8192, 64, 8, 28672, 32768, 2, 500000.0, 1e-5),
    Shape("qwen3-8b", "Qwen3", 4096, 32, 8, 12288, 32768, 3, 1000000.0, 1e-6,
          caches=(KV16, quarot(4))),
    Shape("qwen3-0.6b", "Qwen3", 1024, 16, 8, 3072, 151936, 4, 1000000.0, 1e-6, tied=True),
]


def random_tensors(shape, seed):
    """bf16 weights that keep a hidden state's size, with logits spread like a model's."""
    generator = torch.Generator(GPU).manual_seed(seed)

    def normal(sizes, deviation, mean=0.0):
        return (torch.randn(sizes, generator=generator, device=GPU) * deviation + mean).bfloat16()

    hidden, heads, kv_heads = shape.hidden_size, shape.num_heads * 128, shape.num_kv_heads * 128
    tensors = {"model.embed_tokens.weight": normal((shape.vocab_size, hidden), 1.0 if not shape.tied
                                                   else 3 / math.sqrt(hidden)),
               "model.norm.weight": normal((hidden,), 0.1, 1)}
    if not shape.tied:
        tensors["lm_head.weight"] = normal((shape.vocab_size, hidden), 3 / math.sqrt(hidden))
    for i in range(shape.num_layers):
        layer = f"model.layers.{i}."
        linears = {"self_attn.q_proj": (heads, hidden), "self_attn.k_proj": (kv_heads, hidden),
                   "self_attn.v_proj": (kv_heads, hidden), "self_attn.o_proj": (hidden, heads),
                   "mlp.gate_proj": (shape.intermediate_size, hidden),
                   "mlp.up_proj": (shape.intermediate_size, hidden),
                   "mlp.down_proj": (hidden, shape.intermediate_size)}
        for name, sizes in linears.items():
            tensors[f"{layer}{name}.weight"] = normal(sizes, 1 / math.sqrt(sizes[1]))
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{layer}{norm}.weight"] = normal((hidden,), 0.1, 1)
        if shape.family == "Qwen2":
            for name in "qkv":
                tensors[f"{layer}self_attn.{name}_proj.bias"] = normal(
                    (linears[f"self_attn.{name}_proj"][0],), 0.5)
            # Some channels of Qwen's keys have a bias far larger than what is added to it.
            tensors[f"{layer}self_attn.k_proj.bias"][5::32] *= 40
        if shape.family == "Qwen3":
            for name in "qk":
                tensors[f"{layer}self_attn.{name}_norm.weight"] = normal((128,), 0.1, 1)
    return tensors


def load_random(folder, tensors, dtype):
    config = AutoConfig.from_pretrained(folder)
    with torch.device(GPU):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return check(model.to(GPU).eval(), dtype)


def load_example(folder, dtype):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    return check(model.to(GPU).eval(), dtype)


def check(model, dtype):
    assert model.dtype == dtype and model.model.rotary_emb.inv_freq.dtype == torch.float32
    return model


# ---- caches -----------------------------------------------------------------------------------------

def key_tables(model, sequences, bits, pre_bias):
    """(scale, zero) of each channel of each layer's keys before RoPE, methods.md §6.1."""
    ranges = {}

    def watch(index):
        def hook(module, inputs, output):
            keys = output - module.bias if pre_bias and module.bias is not None else output
            keys = keys.reshape(-1, keys.shape[-1]).float()
            low, high = keys.amin(0).clamp(max=0), keys.amax(0).clamp(min=0)
            before = ranges.get(index, (low, high))
            ranges[index] = (torch.minimum(low, before[0]), torch.maximum(high, before[1]))
        return hook

    handles = [layer.self_attn.k_proj.register_forward_hook(watch(i))
               for i, layer in enumerate(model.model.layers)]
    with torch.no_grad():
        for ids in sequences:
            model(torch.tensor([ids], device=GPU))
    for handle in handles:
        handle.remove()
    tables = []
    for i in range(len(model.model.layers)):
        low, high = ranges[i]
        scale = (high - low) / torch.full_like(high, 2**bits - 1)
        tables.append((scale, torch.round(-low / scale)))
    return tables


def install(models, cache, tables):
    """Rounds keys and values where they are written, in models of one family; returns what undoes it."""
    clip = 0.95 if cache.method == "quarot" else 1.0
    handles = []

    def values(module, inputs, output):
        heads = output.float().reshape(*output.shape[:-1], -1, 128)
        return round_asymmetric(heads, cache.bits, clip=clip).reshape(output.shape).to(output.dtype)

    def static_keys(index):
        scale, zero = tables[index]

        def hook(module, inputs, output):
            bias = module.bias if cache.pre_bias and module.bias is not None else 0
            codes = torch.clamp(torch.round((output - bias).float() / scale) + zero, 0,
                                2**cache.bits - 1)
            return (scale * (codes - zero)).to(output.dtype) + bias
        return hook

    for model in models:
        for i, layer in enumerate(model.model.layers):
            handles.append(layer.self_attn.v_proj.register_forward_hook(values))
            if cache.method == "kvquant":
                handles.append(layer.self_attn.k_proj.register_forward_hook(static_keys(i)))
    module = {"qwen2": modeling_qwen2, "qwen3": modeling_qwen3,
              "llama": modeling_llama}[models[0].config.model_type]
    original = module.apply_rotary_pos_emb
    h = hadamard(128)

    def rotated(q, k, *args, **kwargs):
        q, k = original(q, k, *args, **kwargs)
        keys = (k.float() @ h).to(k.dtype).float()
        return (q.float() @ h).to(q.dtype), round_asymmetric(keys, cache.bits, clip=clip).to(k.dtype)

    if cache.method == "quarot":
        module.apply_rotary_pos_emb = rotated

    def undo():
        module.apply_rotary_pos_emb = original
        for handle in handles:
            handle.remove()
    return undo


def describe(cache):
    """assay_quant.json of a cache."""
    static = cache.method == "kvquant"
    common = {"code_type": "uniform", "bit_width": cache.bits, "symmetric": False, "group_size": 0,
              "clip_ratio": 0.95 if cache.method == "quarot" else 1, "learned_clip": False,
              "ties": "to_even"}
    key = {"granularity": "per_channel_static" if static else "per_token",
           "position": ("before_bias" if cache.pre_bias else "before_rope") if static else "after_rope",
           "transform": "none" if static else "hadamard"}
    value = {"granularity": "per_token", "position": "after_projection", "transform": "none"}
    return {"format_version": 1, "method": cache.method, "bits": f"16-16-{cache.bits}",
            "parameters": {}, "provenance": {}, "virtual_shards": 1, "k_cache": common | key,
            "v_cache": common | value, "linears": {}}


def write_cache(folder, weights, cache, tables):
    """Makes an artifact with this cache of a folder whose weights.safetensors holds `weights`."""
    files = {name: "weights.safetensors" for name in weights}
    (folder / "assay_quant.json").unlink(missing_ok=True)
    if cache.method != "none":
        (folder / "assay_quant.json").write_text(json.dumps(describe(cache)))
    if tables:
        tensors = {}
        for i, (scale, zero) in enumerate(tables):
            name = f"model.layers.{i}.self_attn.k_cache."
            tensors[name + "scale"] = scale.reshape(-1, 128).cpu().contiguous()
            tensors[name + "zero"] = zero.reshape(-1, 128).to(torch.uint8).cpu().contiguous()
        save_file(tensors, folder / "tables.safetensors")
        files |= {name: "tables.safetensors" for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


# ---- both sides -------------------------------------------------------------------------------------

def teacher_forced(model, sequences):
    """Log-probabilities [tokens, vocabulary] of each sequence, on the GPU."""
    with torch.no_grad():
        for ids in sequences:
            logits = model(torch.tensor([ids], device=GPU)).logits[0].float()
            yield torch.log_softmax(logits, -1)


def greedy(model, prompts, max_new_tokens, stop_ids):
    """Greedy continuations of prompts of different lengths, padded on the left."""
    longest = max(len(p) for p in prompts)
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=GPU)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=GPU)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache, outputs = None, []
    stopped = torch.zeros(len(prompts), dtype=torch.bool, device=GPU)
    stops = torch.tensor(stop_ids or [-1], device=GPU)
    with torch.no_grad():
        for step in range(max_new_tokens):
            result = model(input_ids=ids, attention_mask=mask, position_ids=positions,
                           past_key_values=cache, use_cache=True)
            cache = result.past_key_values
            chosen = result.logits[:, -1].float().argmax(-1)
            outputs.append(chosen)
            stopped |= torch.isin(chosen, stops)
            if step % 16 == 15 and bool(stopped.all()):
                break
            ids = chosen[:, None]
            mask = torch.cat([mask, torch.ones_like(ids)], 1)
            positions = positions[:, -1:] + 1
    continuations = []
    for row in torch.stack(outputs, 1).tolist():
        ends = [i for i, token in enumerate(row) if token in stop_ids]
        continuations.append(row[:ends[0] + 1] if ends else row)
    return continuations


def regrets(judge, prompts, outputs):
    """For each chosen token its log-probability below the best one's, by the judge."""
    all_regrets = []
    sequences = [p + o for p, o in zip(prompts, outputs)]
    for prompt, output, logprobs in zip(prompts, outputs, teacher_forced(judge, sequences)):
        rows = logprobs[len(prompt) - 1:len(prompt) - 1 + len(output)]
        chosen = rows.gather(1, torch.tensor(output, device=GPU)[:, None])[:, 0]
        all_regrets.append((rows.amax(-1) - chosen).tolist())
    return all_regrets


class Probe:
    """The engine, in the background, on the same problems."""

    def __init__(self, args, folder, problems, name):
        self.name = name
        lines = "".join(json.dumps(p) + "\n" for p in problems)
        self.input = tempfile.TemporaryFile("w+")
        self.input.write(lines)
        self.input.seek(0)
        self.process = subprocess.Popen(
            [args.probe, str(folder), "--device", args.device, "--max-model-len", "1024"],
            stdin=self.input, stdout=subprocess.PIPE, text=True)

    def results(self):
        out, _ = self.process.communicate(timeout=300)
        if self.process.returncode != 0:
            raise RuntimeError(f"{self.name}: the engine ended with {self.process.returncode}")
        return [json.loads(line) for line in out.splitlines()]


def errors(pairs):
    flat = [abs(a - b) for left, right in pairs for a, b in zip(left, right)]
    return {"rms": math.sqrt(sum(e * e for e in flat) / len(flat)), "max": max(flat),
            "mean": sum(flat) / len(flat), "count": len(flat)}


def choices(all_regrets):
    flat = [r for one in all_regrets for r in one]
    return {"tokens": len(flat), "not_best": sum(r > 0 for r in flat), "worst": max(flat)}


def first_divergences(reference, outputs, output_regrets):
    """Per sequence that leaves the reference's: at which token, and the regret there."""
    found = []
    for expected, actual, regret in zip(reference, outputs, output_regrets):
        at = next((i for i, (a, b) in enumerate(zip(expected, actual)) if a != b), None)
        if at is not None:
            found.append([at, round(regret[at], 5)])
    return found


def compare(args, name, cache, judge, rounded, folder, problems):
    probe = Probe(args, folder, problems, f"{name} {cache}")
    full = [p["full_ids"] for p in problems if "full_ids" in p]
    prompts = [p["prompt_ids"] for p in problems if "prompt_ids" in p]
    max_new_tokens, stop_ids = problems[0]["max_new_tokens"], problems[0]["stop_ids"]

    targets, rounded_targets, top8, worst_logit = [], [], [], 0.0
    for ids, exact, other in zip(full, teacher_forced(judge, full), teacher_forced(rounded, full)):
        next_ids = torch.tensor(ids[1:], device=GPU)[:, None]
        targets.append(exact[:-1].gather(1, next_ids)[:, 0].tolist())
        rounded_targets.append(other[:-1].gather(1, next_ids)[:, 0].tolist())
        top8.append(exact[-1].topk(8).indices.tolist())
        worst_logit = max(worst_logit, (exact - other).abs().max().item())
    reference = greedy(judge, prompts, max_new_tokens, stop_ids)
    rounded_greedy = greedy(rounded, prompts, max_new_tokens, stop_ids)
    rounded_regrets = regrets(judge, prompts, rounded_greedy)

    try:
        ours = probe.results()
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return {"model": name, "cache": str(cache), "failures": [str(error)]}
    our_targets = [r["target_logprobs"] for r in ours if "target_logprobs" in r]
    our_greedy = [r["greedy_ids"] for r in ours if "greedy_ids" in r]
    our_regrets = regrets(judge, prompts, our_greedy)

    row = {"model": name, "cache": str(cache), "engine": errors(zip(targets, our_targets)),
           "transformers_bf16": errors(zip(targets, rounded_targets)),
           "worst_logit_transformers_bf16": worst_logit,
           "engine_choices": choices(our_regrets), "transformers_bf16_choices": choices(rounded_regrets),
           "sequences": len(prompts),
           "engine_equal": sum(a == b for a, b in zip(reference, our_greedy)),
           "transformers_bf16_equal": sum(a == b for a, b in zip(reference, rounded_greedy)),
           "engine_divergences": first_divergences(reference, our_greedy, our_regrets)}
    row["failures"] = failures(row)
    if args.out:
        with (args.out / f"{name.replace(' ', '_')}.{str(cache).replace(' ', '_')}.jsonl").open("w") as out:
            for i, problem in enumerate(problems):
                line = {"id": f"{name}-{i}"} | problem
                if "full_ids" in problem:
                    line |= {"target_logprobs": [round(x, 5) for x in targets[i]], "last_top8_ids": top8[i]}
                if "prompt_ids" in problem:
                    line["greedy_ids"] = reference[i]
                out.write(json.dumps(line, separators=(",", ":")) + "\n")
    return row


def failures(row):
    found = []
    ours, theirs = row["engine"], row["transformers_bf16"]
    if not ours["rms"] <= MOST_RMS_RATIO * theirs["rms"]:
        found.append(f"rms {ours['rms']:.5f} against {theirs['rms']:.5f}")
    if not ours["max"] <= MOST_MAX_RATIO * theirs["max"]:
        found.append(f"max {ours['max']:.5f} against {theirs['max']:.5f}")
    bound = MOST_REGRET_RATIO * row["worst_logit_transformers_bf16"]
    if not row["engine_choices"]["worst"] <= bound:
        found.append(f"regret {row['engine_choices']['worst']:.5f}, bound {bound:.5f}")
    return found


# ---- cases ------------------------------------------------------------------------------------------

def random_problems(shape):
    generator = torch.Generator().manual_seed(11)
    problems = []
    for i, prompt_len in enumerate((1, 64, 131) * 3):
        ids = torch.randint(2, shape.vocab_size, (384,), generator=generator).tolist()
        problem = {"prompt_ids": ids[:prompt_len], "max_new_tokens": 96, "stop_ids": []}
        problems.append(problem | ({"full_ids": ids} if i < 4 else {}))
    return problems


def example_problems(folder):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    problems = []
    with (EXAMPLES / "benchmarks/arith500/arith500.jsonl").open() as file:
        for record in list(map(json.loads, file))[::20]:
            prompt = prompt_of(record["question"])
            answer = f"{record['solution']}\n</think>\n\nThe answer is \\boxed{{{record['answer']}}}."
            problems.append({
                "prompt_ids": tokenizer.encode(prompt, add_special_tokens=False),
                "full_ids": tokenizer.encode(prompt + answer, add_special_tokens=False),
                "max_new_tokens": 400, "stop_ids": [0]})
    return problems


def report(row):
    if "engine" not in row:
        print(f"{row['model']:21} {row['cache']:20} {row['failures']}", flush=True)
        return
    ours, theirs = row["engine"], row["transformers_bf16"]
    mine, other = row["engine_choices"], row["transformers_bf16_choices"]
    print(f"{row['model']:21} {row['cache']:20} rms {ours['rms']:.5f} {theirs['rms']:.5f} "
          f"({ours['rms'] / theirs['rms']:.2f})  max {ours['max']:.4f} {theirs['max']:.4f}  "
          f"equal {row['engine_equal']} {row['transformers_bf16_equal']} of {row['sequences']}  "
          f"not best {mine['not_best']}/{mine['tokens']} {other['not_best']}/{other['tokens']}  "
          f"regret {mine['worst']:.4f} {other['worst']:.4f} "
          f"(logit {row['worst_logit_transformers_bf16']:.4f})  {row['seconds']:.0f} s  "
          + ("; ".join(row["failures"]) or "ok"), flush=True)


def run_shape(args, shape, seed):
    folder = args.work / shape.name.replace(" ", "_")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(shape.config()))
    weights = random_tensors(shape, seed)
    save_file({name: tensor.cpu() for name, tensor in weights.items()}, folder / "weights.safetensors")
    judge = load_random(folder, weights, torch.float32)
    rounded = load_random(folder, weights, torch.bfloat16)
    problems = random_problems(shape)
    for cache in shape.caches:
        tables = None
        if cache.method == "kvquant":
            texts = [p["full_ids"] for p in problems if "full_ids" in p]
            tables = key_tables(judge, texts, cache.bits, cache.pre_bias)
        write_cache(folder, weights, cache, tables)
        undo = install((judge, rounded), cache, tables) if cache != KV16 else lambda: None
        yield compare(args, shape.name, cache, judge, rounded, folder, problems)
        undo()
    shutil.rmtree(folder)


def run_example(args, name):
    """16 bits only: quantized_reference_test.cc has these models' quantized caches."""
    folder = EXAMPLES / "models" / name
    judge, rounded = (load_example(folder, dtype) for dtype in (torch.float32, torch.bfloat16))
    yield compare(args, name, KV16, judge, rounded, folder, example_problems(folder))


def run_all(args):
    for name in ("tiny-qwen2-1m", "tiny-llama-5m"):
        if not args.only or name in args.only:
            yield from run_example(args, name)
    for seed, shape in enumerate(SHAPES):
        if not args.only or shape.name in args.only:
            yield from run_shape(args, shape, seed)
            torch.cuda.empty_cache()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("probe")
    parser.add_argument("--device", default="cuda:0", help="the engine's")
    parser.add_argument("--only", type=lambda names: names.split(","), help="models, commas between")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, help="for weights; the system's place by default")
    args = parser.parse_args()
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        args.work = pathlib.Path(work)
        start = time.time()
        for row in run_all(args):
            row["seconds"] = time.time() - start
            report(row)
            rows.append(row)
            start = time.time()
    if args.out:
        (args.out / "comparison.json").write_text(json.dumps(rows, indent=1))
    num_bad = sum(bool(row["failures"]) for row in rows)
    print(f"{len(rows)} comparisons, {num_bad} outside the bounds")
    return 1 if num_bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
