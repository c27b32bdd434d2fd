"""How the depth of the site changes learning: optimizer steps, and edits that never get there.

    python benchmarks/site_depth.py [--data FILE] [--count N] [--model NAME]

Tuned on the training split of zsRE, so that the evaluation split stays unseen. Steps do not
depend on the machine; seconds do, and are given for comparison within one run only.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from pathlib import Path
from typing import Any

from editkit.editing.files import read_requests
from editkit.engines.transformers.site import default_site, find_site
from editkit.engines.transformers.tokens import Encoder
from editkit.methods.grace import learning as grace
from editkit.methods.grace.config import GraceConfig
from editkit.models import load_model

BATCH = 16
RATES = (0.5, 1.0, 2.0)
DEPTHS = (0.6, 0.7, 0.77, 0.84)


def main() -> None:
    """Measures and prints."""
    folder = os.environ.get("EDITKIT_DATA", Path(__file__).parents[2] / "shared" / "data")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=str(Path(folder) / "zsre_train.jsonl"))
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--model", default="smollm2-135m")
    asked: Any = parser.parse_args()
    loaded = load_model(asked.model)
    encoder = Encoder(loaded.model, loaded.tokenizer)
    lines = itertools.islice(read_requests(asked.data), asked.count)
    encoded = [encoder.request(request) for _, request in lines]
    reference = default_site(loaded.model)
    print(f"model {asked.model}, {len(encoded)} edits of zsRE's training split, at most 100 steps")
    print("depth  block  rate   steps: median  mean   max   not learned  s/edit")
    for depth, rate in itertools.product(DEPTHS, RATES):
        block = min(len(reference.blocks) - 2, round(depth * len(reference.blocks)))
        site = find_site(
            loaded.model, reference.path.replace(f".{reference.block}.", f".{block}.", 1)
        )
        config = GraceConfig(learning_rate=rate)
        started = time.perf_counter()
        learned = [
            value
            for at in range(0, len(encoded), BATCH)
            for value in grace.learn(loaded.model, site, encoded[at : at + BATCH], config)
        ]
        seconds = (time.perf_counter() - started) / len(encoded)
        steps = [value.steps for value in learned]
        failed = sum(value.margin <= config.margin for value in learned)
        print(
            f"{depth:5.2f}  {block:5d}  {rate:4.1f}  {statistics.median(steps):14.1f}  "
            f"{statistics.mean(steps):5.1f}  {max(steps):4d}  {failed:11d}  {seconds:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
