"""Draws the lengths of a reasoning suite for `assay bench engine --lengths`.

usage: make_lengths.py DIVISOR > FILE

A line per request: tokens of the prompt and of the answer. The five benchmarks have their published
numbers of items; answers are lognormal (sigma 0.6) around a mean assumed for a 7B reasoning model,
cut at 32,768; prompts are uniform in 100..500. All lengths are divided by DIVISOR, so that a whole
suite takes seconds and keeps its shape. Benchmarks with long answers come first, as a coordinator
hands them out. The draws are a function of the seed alone.
"""

import math
import random
import sys

SUITE = [  # name, items, mean tokens of an answer
    ("aime120", 120, 12200),
    ("livecodebench", 268, 9200),
    ("gpqa_diamond", 198, 6400),
    ("math500", 500, 3900),
    ("gsm8k", 1319, 1000),
]
SIGMA = 0.6


def main() -> None:
    divisor = int(sys.argv[1])
    draw = random.Random(1)
    print(f"# prompt and answer in tokens, divided by {divisor}: make_lengths.py {divisor}")
    for name, items, mean in SUITE:
        print(f"# {name}: {items} items, mean {mean}")
        for _ in range(items):
            answer = math.exp(draw.gauss(math.log(mean) - SIGMA**2 / 2, SIGMA))
            prompt = draw.uniform(100, 500)
            print(
                max(1, round(prompt / divisor)),
                max(1, round(min(answer, 32768) / divisor)),
            )


main()
