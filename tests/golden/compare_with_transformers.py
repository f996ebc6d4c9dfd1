"""Assay's engine against Hugging Face transformers: the same weights, the same token ids.

    python3 compare_with_transformers.py ENGINE_PROBE [--device cuda:0] [--only NAME,...] [--out DIR]
                                         [--work DIR]

Models: the two of examples/ with problems of arith500, and random weights in the true shapes of the
study's models (and of two Qwen3), cut to a few layers, with random ids. Caches: 16 bits, and per shape
some quantized ones, simulated on top of transformers. ENGINE_PROBE is the program
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
from transformers import PreTrainedTokenizerFast

from make_quantized_reference import prompt_of
from reference_models import (GPU, KV16, SHAPES, install, key_tables, load_example, load_random,
                              random_tensors, write_cache)

torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"

# The engine's error over that of transformers in bf16. Both are samples of the same rounding; the
# largest of a few thousand errors scatters more than their mean square.
MOST_RMS_RATIO = 1.5
MOST_MAX_RATIO = 2.0
# A token that bf16 takes for the best is worse by no more than the errors of two logits, each at most
# what transformers in bf16 shows anywhere in the vocabulary, with the same room for chance.
MOST_REGRET_RATIO = 2 * 1.5


def teacher_forced(model, sequences):
    """Log-probabilities [tokens, vocabulary] of each sequence, on the GPU."""
    with torch.no_grad():
        for ids in sequences:
            logits = model(torch.tensor([ids], device=GPU)).logits[0].float()
            yield torch.log_softmax(logits, -1)


def greedy(model, prompts, max_new_tokens, stop_ids):
    """Greedy continuations; long prompts by themselves, for the others are padded to the longest."""
    short = [i for i, prompt in enumerate(prompts) if len(prompt) <= 1024]
    groups = [short] + [[i] for i in range(len(prompts)) if i not in short]
    outputs = [None] * len(prompts)
    for group in groups:
        found = greedy_batch(model, [prompts[i] for i in group], max_new_tokens, stop_ids)
        for i, output in zip(group, found):
            outputs[i] = output
    return outputs


def greedy_batch(model, prompts, max_new_tokens, stop_ids):
    """Padded on the left."""
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
                           past_key_values=cache, use_cache=True, logits_to_keep=1)
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
        max_model_len = max(max(len(p["prompt_ids"]) + p["max_new_tokens"], len(p.get("full_ids", [])))
                            for p in problems)
        lines = "".join(json.dumps(p) + "\n" for p in problems)
        self.input = tempfile.TemporaryFile("w+")
        self.input.write(lines)
        self.input.seek(0)
        self.process = subprocess.Popen(
            [args.probe, str(folder), "--device", args.device, "--max-model-len", str(max_model_len)],
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
    prompts = [p["prompt_ids"] for p in problems]
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
    our_greedy = [r["greedy_ids"] for r in ours]
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
            scored = iter(zip(targets, top8))
            for i, problem in enumerate(problems):
                line = {"id": f"{name}-{i}", "greedy_ids": reference[i]} | problem
                if "full_ids" in problem:
                    logprobs, line["last_top8_ids"] = next(scored)
                    line["target_logprobs"] = [round(x, 5) for x in logprobs]
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


def random_problems(shape):
    generator = torch.Generator().manual_seed(11)
    problems = []
    for i, prompt_len in enumerate((1, 64, 131) * 3):
        ids = torch.randint(2, shape.vocab_size, (384,), generator=generator).tolist()
        problem = {"prompt_ids": ids[:prompt_len], "max_new_tokens": 96, "stop_ids": []}
        problems.append(problem | ({"full_ids": ids} if i < 4 else {}))
    if shape.long_len:
        ids = torch.randint(2, shape.vocab_size, (shape.long_len,), generator=generator).tolist()
        problems.append({"full_ids": ids, "prompt_ids": ids, "max_new_tokens": 96, "stop_ids": []})
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
