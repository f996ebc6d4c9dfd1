"""Models for compare_with_transformers.py: shapes, random weights, quantized caches on top of transformers."""
import dataclasses
import json
import math

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
import transformers.models.llama.modeling_llama as modeling_llama
import transformers.models.qwen2.modeling_qwen2 as modeling_qwen2
import transformers.models.qwen3.modeling_qwen3 as modeling_qwen3

from make_quantized_reference import hadamard, round_asymmetric

GPU = "cuda:0"

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
    """A model's published shape; num_layers and vocab_size are what is left of them here."""
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
    long_len: int = 0  # one more sequence, of so many tokens

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
    Shape("llama-70b", "Llama", 8192, 64, 8, 28672, 32768, 2, 500000.0, 1e-5,
          long_len=6144),
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

def key_tables(model, sequences, bits, pre_bias):
    """(scale, zero) of each channel of each layer's keys before RoPE, as kvquant_star has them."""
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
