"""Writes arith-traces.jsonl: problems with traces, self-checks included, for calibrating the tiny models.

    python3 make_arith_traces.py > arith-traces.jsonl

The generator is the one the models were trained with (../training/gen.py), under another seed, and no
problem of the arith500 benchmark is used.
"""
import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "training"))
import gen  # noqa: E402

NUM_RECORDS = 256
SEED = 20261122


def main():
    benchmark = HERE.parent / "benchmarks" / "arith500" / "arith500.jsonl"
    held_out = {json.loads(line)["question"] for line in benchmark.open()}
    rng = random.Random(SEED)
    num_written = 0
    while num_written < NUM_RECORDS:
        question, trace, *_ = gen.sample(rng)
        if question in held_out:
            continue
        held_out.add(question)
        print(json.dumps({"question": question, "response": trace}))
        num_written += 1


if __name__ == "__main__":
    main()
