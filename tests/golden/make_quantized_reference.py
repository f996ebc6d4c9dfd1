"""Reference outputs of quantized models from Hugging Face transformers, for tests/golden.

    python3 make_quantized_reference.py EXAMPLES_DIR OUT_DIR [--accuracy]

Writes OUT_DIR/<model>.<cell>.jsonl: for a few problems the teacher-forced log-probabilities of the
model quantized as quantize.h says, simulated in float32 on top of the unmodified transformers model
(weights replaced by grid values; keys and values rounded where they are written to the cache). With
--accuracy also generates answers to the whole benchmark (temperature 0.6, top-p 0.95) and prints
accuracy by level and mean lengths: what the demo's table must agree with.

Nothing here shares code with Assay. Needs torch, transformers, a GPU for --accuracy.
"""
import argparse
import json
import math
import pathlib
import re

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
import transformers.models.llama.modeling_llama as modeling_llama
import transformers.models.qwen2.modeling_qwen2 as modeling_qwen2

torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NUM_PROBLEMS = 10
CELLS = {
    "tiny-qwen2-1m": ["bf16", "rtn-4", "rtn-3", "rtn-2", "kvquant-4-pre-bias", "kvquant-3-pre-bias",
                      "kvquant-4", "quarot-4"],
    "tiny-llama-5m": ["bf16", "rtn-4", "rtn-3", "rtn-2", "kvquant-4", "quarot-4"],
}


def round_asymmetric(x, bits, clip=1.0, dim=-1):
    """Range with zero, one scale and zero point along `dim`."""
    levels = 2**bits - 1
    high = x.amax(dim, keepdim=True).clamp(min=0) * clip
    low = x.amin(dim, keepdim=True).clamp(max=0) * clip
    degenerate = (high == 0) & (low == 0)
    high = torch.where(degenerate, torch.ones_like(high), high)
    low = torch.where(degenerate, -torch.ones_like(low), low)
    # A tensor, because torch on CUDA multiplies by the reciprocal of a Python scalar: one unit in the
    # last place, and enough to move a zero point where -low / scale is a tie.
    scale = (high - low) / torch.full_like(high, levels)
    zero = torch.round(-low / scale)
    return scale * (torch.clamp(torch.round(x / scale) + zero, 0, levels) - zero)


def quantize_weights(model, bits, group=128):
    for layer in model.model.layers:
        for block, names in ((layer.self_attn, "qkvo"), (layer.mlp, ("gate", "up", "down"))):
            for name in names:
                linear = getattr(block, f"{name}_proj")
                rows, columns = linear.weight.shape
                groups = linear.weight.data.view(rows, columns // group, group)
                linear.weight.data = round_asymmetric(groups, bits).view(rows, columns)


def hadamard(n):
    h = torch.ones(1, 1)
    while h.shape[0] < n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)], 0)
    return (h / math.sqrt(n)).to(DEVICE)


def calibrated_tables(model, documents, bits, pre_bias):
    """Per layer (scale, zero) of each key channel before RoPE, from min and max over all tokens."""
    ranges = [None] * len(model.model.layers)

    def watch(index):
        def hook(module, inputs, output):
            keys = output - module.bias if pre_bias and module.bias is not None else output
            keys = keys.reshape(-1, keys.shape[-1])
            low, high = keys.amin(0), keys.amax(0)
            if ranges[index] is not None:
                low = torch.minimum(low, ranges[index][0])
                high = torch.maximum(high, ranges[index][1])
            ranges[index] = (low, high)
        return hook

    handles = [layer.self_attn.k_proj.register_forward_hook(watch(i))
               for i, layer in enumerate(model.model.layers)]
    with torch.no_grad():
        for ids in documents:
            model(torch.tensor([ids], device=DEVICE))
    for handle in handles:
        handle.remove()
    tables = []
    for low, high in ranges:
        high, low = high.clamp(min=0), low.clamp(max=0)
        scale = (high - low) / torch.full_like(high, 2**bits - 1)
        tables.append((scale, torch.round(-low / scale)))
    return tables


def install_kvquant(model, tables, bits, pre_bias):
    head_dim = model.config.head_dim

    def keys_hook(index):
        scale, zero = tables[index]

        def hook(module, inputs, output):
            bias = module.bias if pre_bias and module.bias is not None else 0
            codes = torch.clamp(torch.round((output - bias) / scale) + zero, 0, 2**bits - 1)
            return scale * (codes - zero) + bias
        return hook

    def values_hook(module, inputs, output):
        shape = output.shape
        heads = output.reshape(*shape[:-1], -1, head_dim)
        return round_asymmetric(heads, bits).reshape(shape)

    for i, layer in enumerate(model.model.layers):
        layer.self_attn.k_proj.register_forward_hook(keys_hook(i))
        layer.self_attn.v_proj.register_forward_hook(values_hook)


def install_quarot_kv(model, bits):
    head_dim = model.config.head_dim
    h = hadamard(head_dim)
    module = modeling_qwen2 if model.config.model_type == "qwen2" else modeling_llama
    original = module.apply_rotary_pos_emb

    def rotated(q, k, *args, **kwargs):
        q, k = original(q, k, *args, **kwargs)
        return q @ h, round_asymmetric(k @ h, bits, clip=0.95)

    def values_hook(linear, inputs, output):
        shape = output.shape
        heads = output.reshape(*shape[:-1], -1, head_dim)
        return round_asymmetric(heads, bits, clip=0.95).reshape(shape)

    module.apply_rotary_pos_emb = rotated
    for layer in model.model.layers:
        layer.self_attn.v_proj.register_forward_hook(values_hook)
    return lambda: setattr(module, "apply_rotary_pos_emb", original)


def prompt_of(question):
    return f"<｜begin▁of▁sentence｜><｜User｜>{question}<｜Assistant｜><think>\n"


def make(examples, name, cell, tokenizer, calibration):
    model = AutoModelForCausalLM.from_pretrained(
        examples / "models" / name, dtype=torch.float32, attn_implementation="sdpa").to(DEVICE).eval()
    undo = lambda: None
    method, *rest = cell.split("-")
    if method == "rtn":
        quantize_weights(model, int(rest[0]))
    elif method == "kvquant":
        documents = [tokenizer.encode(prompt_of(r["question"]) + r["response"],
                                      add_special_tokens=False) for r in calibration]
        bits, pre_bias = int(rest[0]), len(rest) > 1
        install_kvquant(model, calibrated_tables(model, documents, bits, pre_bias), bits, pre_bias)
    elif method == "quarot":
        undo = install_quarot_kv(model, int(rest[0]))
    return model, undo


def write_logprobs(model, tokenizer, problems, path):
    with path.open("w") as out, torch.no_grad():
        for problem in problems:
            text = (prompt_of(problem["question"]) + problem["solution"] +
                    f"\n</think>\n\nThe answer is \\boxed{{{problem['answer']}}}.")
            ids = tokenizer.encode(text, add_special_tokens=False)
            logits = model(torch.tensor([ids], device=DEVICE)).logits[0].double()
            logprobs = torch.log_softmax(logits, -1)[:-1]
            target = logprobs.gather(1, torch.tensor(ids[1:], device=DEVICE)[:, None])[:, 0]
            out.write(json.dumps({"ids": ids, "target_logprobs": [round(x, 5) for x in target.tolist()]},
                                 separators=(",", ":")) + "\n")


def accuracy(model, tokenizer, problems, max_tokens=512, batch=250):
    torch.manual_seed(42)
    by_level, lengths, truncated = {}, [], 0
    tokenizer.padding_side = "left"
    tokenizer.pad_token = "<pad>"
    for start in range(0, len(problems), batch):
        part = problems[start:start + batch]
        inputs = tokenizer([prompt_of(p["question"]) for p in part], return_tensors="pt",
                           padding=True, add_special_tokens=False).to(DEVICE)
        with torch.no_grad():
            output = model.generate(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask,
                                    do_sample=True, temperature=0.6, top_p=0.95, top_k=0,
                                    max_new_tokens=max_tokens, pad_token_id=6, eos_token_id=0)
        for problem, ids in zip(part, output[:, inputs.input_ids.shape[1]:].tolist()):
            length = ids.index(0) + 1 if 0 in ids else len(ids)
            truncated += 0 not in ids
            lengths.append(length)
            boxes = re.findall(r"\\boxed\{([^{}]*)\}", tokenizer.decode(ids[:length]))
            right = bool(boxes) and boxes[-1].strip() == problem["answer"]
            by_level.setdefault(problem["level"], []).append(right)
    levels = {k: round(100 * sum(v) / len(v), 1) for k, v in sorted(by_level.items())}
    total = sum(sum(v) for v in by_level.values())
    return {"levels": levels, "accuracy": round(100 * total / len(problems), 1),
            "mean_tokens": round(sum(lengths) / len(lengths), 1), "truncated": truncated}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("examples", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--accuracy", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    problems = [json.loads(line) for line in (args.examples / "benchmarks/arith500/arith500.jsonl").open()]
    calibration = [json.loads(line) for line in (args.examples / "calibration/arith-traces.jsonl").open()]
    for name, cells in CELLS.items():
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(args.examples / "models" / name / "tokenizer.json"))
        for cell in cells:
            model, undo = make(args.examples, name, cell, tokenizer, calibration)
            step = len(problems) // NUM_PROBLEMS
            write_logprobs(model, tokenizer, problems[::step][:NUM_PROBLEMS],
                           args.out / f"{name}.{cell}.jsonl")
            if args.accuracy:
                print(name, cell, json.dumps(accuracy(model, tokenizer, problems)), flush=True)
            undo()


if __name__ == "__main__":
    main()
