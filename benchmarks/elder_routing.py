"""How often general text is in scope as ELDER's store of codes fills, and what that costs in reach.

    python benchmarks/elder_routing.py [--model NAME] [--edits N ...]

Edits of zsRE and CounterFact in turn, no rephrasing given. Their allocations are drawn and the
routers fitted as in learning (preset default); experts do not matter here. Reported for each number
of codes, and for thresholds T of the Hamming distance:

random     share of uniformly random codes that lie nearer than T to one of as many random codes:
           1 - (1 - p)^n, with p from the distribution of the distance of two allocations (in each
           layer 0, 2 or 4 bits with probabilities 1/6, 4/6, 1/6). What a router that knows nothing
           would do.
text       share of the beginnings of web pages with a code nearer than T to one of the edits'.
NQ         likewise of questions of Natural Questions, the probes of zsRE.
own        share of the edits' first rephrasings, which nobody gave, with a code nearer than T.
in reach   the same three where a prompt must also lie within the radius of the default, .8.
right      share of those rephrasings in scope of their own edit then.
threshold  what calibration on held-out text makes of the default's 9: by the codes alone, and with
           the radius.

Reads the data beside the project, or in EDITKIT_DATA.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from elder_quality import Stream
from quality import pages, rows

from editkit.engines.base import Encoded
from editkit.methods.elder import routers, routing
from editkit.methods.elder.config import ElderConfig, TrainConfig
from editkit.methods.elder.part import ElderPart
from editkit.methods.elder.state import ElderState

THRESHOLDS = (1, 4, 9, 12)


def by_chance(threshold: int, count: int, layers: int) -> float:
    """The share of random codes nearer than a threshold to one of ``count`` random ones."""
    spread = np.zeros(4 * layers + 1)
    spread[0] = 1.0
    for _ in range(layers):
        spread = (
            spread / 6
            + np.concatenate([np.zeros(2), spread[:-2]]) * 4 / 6
            + np.concatenate([np.zeros(4), spread[:-4]]) / 6
        )
    return float(-np.expm1(count * np.log1p(-spread[:threshold].sum())))


def queries(stream: Stream, prompts: Sequence[str]) -> torch.Tensor:
    """What routers see of prompts, ``(n, d)``."""
    ending = stream.encoder.stop_ids[:1]
    asked = [Encoded(stream.encoder.prompt(one), ending, "") for one in prompts]
    return torch.stack(stream.learner._queries(asked))


def fitted(stream: Stream, asked: torch.Tensor) -> ElderState:
    """A state that knows edits by their queries ``(n, d)``, and has learned to route them."""
    blank, count = stream.learner.blank(), len(asked)
    drawn = routing.allocate(
        count,
        layers=blank.layers,
        experts=blank.num_experts,
        k=blank.top_k,
        taken={
            routing.packed(routers.nobody(blank.layers, blank.top_k), blank.num_experts)[
                0
            ].tobytes()
        },
    )
    found = routers.fit(
        routing.unit_rms(asked),
        torch.from_numpy(drawn),
        experts=blank.num_experts,
        unrelated=routing.unit_rms(stream.learner._text[0]),
        steps=TrainConfig().fitting_steps,
    )
    return dataclasses.replace(
        blank,
        routers=found.half().float(),
        codes=routing.packed(drawn, blank.num_experts),
        edit_ids=tuple(f"{index:016x}" for index in range(count)),
        queries=asked.numpy(),
        owners=np.arange(count),
    )


def measure(stream: Stream, edits: list[dict[str, Any]], text: Any, asked: Any) -> None:
    """Prints the figures of one number of edits."""
    count = len(edits)
    state = fitted(stream, queries(stream, [edit["prompt"] for edit in edits]))
    own = queries(stream, [edit["rephrases"][0] for edit in edits])
    sets = {"text": text, "NQ": asked, "own": own}
    view = ElderPart(state)
    bits, apart = {}, {}
    for name, found in sets.items():
        bits[name] = view.bits(state.encoded(found)[2]).min(axis=1)
        apart[name] = view.between(found.numpy())
    is_right = apart["own"].argmin(axis=1) == np.arange(count)
    course = stream.learner._course
    thresholds = [
        course._calibrated(dataclasses.replace(state, radius=radius))[0].threshold
        for radius in (None, state.radius)
    ]
    near = {name: found.min(axis=1) <= state.radius for name, found in apart.items()}
    for threshold in THRESHOLDS:
        codes = {name: (found < threshold) for name, found in bits.items()}
        both = {name: found & near[name] for name, found in codes.items()}
        shares = [by_chance(threshold, count, state.layers)]
        shares += [float(codes[name].mean()) for name in sets]
        shares += [float(both[name].mean()) for name in sets]
        shares.append(float((both["own"] & is_right).mean()))
        told = "  ".join(f"{one:6.3f}" for one in shares)
        end = f"  {thresholds[0]:4d} {thresholds[1]:4d}" if threshold == THRESHOLDS[0] else ""
        print(f"{count:6d} {threshold:4d}  {told}{end}", flush=True)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--edits", type=int, nargs="*", default=[10, 30, 100, 300, 1000])
    asked: Any = parser.parse_args()
    print(
        f"{asked.model}, CPU, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"Python {platform.python_version()}"
    )
    stream = Stream(asked.model, ElderConfig.of("default"), TrainConfig.of("default"))
    half = math.ceil(max(asked.edits) / 2)
    pairs = zip(rows("zsre", half), rows("counterfact", half), strict=True)
    edits = [one for one in itertools.chain.from_iterable(pairs) if one["rephrases"]]
    lines = [line for line in pages().splitlines() if line][:300]
    text = queries(stream, [" ".join(line.split()[: 8 + 4 * (n % 10)])
                            for n, line in enumerate(lines)])  # fmt: skip
    probes = queries(stream, [edit["locality_prompt"] for edit in rows("zsre", 300)])
    print(" edits    T  random    text      NQ     own  | in reach: text, NQ, own    right"
          "   threshold: codes, both")  # fmt: skip
    for count in asked.edits:
        measure(stream, edits[:count], text, probes)


if __name__ == "__main__":
    main()
