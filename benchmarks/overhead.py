"""What an attached codebook adds to generation, by the number of its keys.

    python benchmarks/overhead.py [--key pooled|state] [--model NAME] [--device D] [--keys N ...]
                                  [--rounds R]

A codebook of random rows is put behind the model: keys spread like those of real prompts (mixtures
of them, so that the query lies in the middle of the crowd), values never used, as no ball holds a
query. Every round times the untouched model, and the same model with the hooks and the codebook, on
the same prompt, whose key is computed anew each time, as of a name not heard before; the order
changes from round to round. Reported are: alone, the untouched model, a median; added, the
difference of the two, each taken at its first decile, prompt by prompt (what disturbs a machine
only ever adds), as the mean over the prompts with its standard error; hooks, the median time spent
in editkit's hooks while the model ran; share, hooks against alone. Prefill: one call of
`model.generate` for a single token. Decode: what 32 more tokens take.

first, again: what a decision takes by itself when the prompt is one that an edit was learned at, so
that it is looked at twice: the first time in a view, and from then on; medians of the prompts. Keys
that are states are looked at once.

Data: prompts of `zsre.jsonl` in the folder EDITKIT_DATA, by default `../shared/data`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from editkit.editing.files import read_requests
from editkit.engines.base import Patch, View
from editkit.engines.transformers.attachment import Attachment
from editkit.engines.transformers.site import Site, default_site
from editkit.engines.transformers.tokens import Encoder
from editkit.methods.grace import learning as grace
from editkit.methods.grace.codebook import Entry
from editkit.methods.grace.config import GraceConfig
from editkit.methods.grace.memory import Memory
from editkit.methods.grace.part import GracePart
from editkit.methods.grace.payload import GracePayload
from editkit.models import load_model
from editkit.scope.keys import pooled_keys
from editkit.scope.pooled import PooledKeys

DECODED = 32
PROMPTS = 8


def codebook(
    real: np.ndarray, asked: np.ndarray, count: int, site: Site, kind: Literal["pooled", "state"],
    device: str | None,
) -> GracePart:  # fmt: skip
    """A view of ``count`` rows that no prompt reaches, and one at each that is asked.

    Args:
        real: ``(n, d)``, keys whose mixtures the rows' are.
        asked: ``(p, d)``, keys of the prompts.
        count: Number of rows, beside those of the prompts, which stand at the end.
        site: Where the values go.
        kind: What the keys are.
        device: Where the index is.
    """
    noise = np.random.default_rng(0)
    memory = Memory(device=device)
    value = np.zeros(site.width, np.float32)
    radius = GraceConfig().initial_radius(kind)
    if kind == "state":
        radius *= float(np.linalg.norm(real, axis=1).mean())

    def put(keys: np.ndarray, start: int) -> None:
        payloads = [
            GracePayload(
                Entry(f"{start + i}", key, (start + i,), radius), value, site.path, key=kind
            )
            for i, key in enumerate(keys.astype(np.float32))
        ]
        memory.put(payloads, [{}] * len(payloads))

    for start in range(0, count, 50_000):
        size = min(50_000, count - start)
        mixed = noise.dirichlet(np.full(4, 1.0), size).astype(np.float32)  # (size, 4)
        chosen = noise.integers(0, len(real), (size, 4))
        keys = np.einsum("ni,nid->nd", mixed, real[chosen])
        keys += noise.normal(0, 0.05 * real.std(), keys.shape).astype(np.float32)
        # Beside the query's own neighbourhood: a hit would change the answer, and what is measured.
        keys += 0.5 * real.std(axis=0) * noise.choice([-1.0, 1.0], keys.shape)
        if kind == "pooled":
            keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        put(keys, start)
    put(asked, count)
    return GracePart(memory, np.arange(count))


def decisions(view: GracePart, asked: np.ndarray) -> tuple[float, float]:
    """Seconds of deciding that a prompt's own edit fires: the first time in a view, and later."""
    first, again = [], []
    for at, key in enumerate(asked):
        row = len(view.memory) - len(asked) + at
        fresh = GracePart(view.memory, np.append(view.rows, row))
        for times in (first, *[again] * 9):
            started = time.perf_counter()
            (found,) = fresh.select(torch.from_numpy(key)[None]).fired
            times.append(time.perf_counter() - started)
            assert found == row
    return statistics.median(first), statistics.median(again)


def seconds(model: Any, ids: torch.Tensor, tokens: int) -> float:
    """Wall-clock seconds of one greedy generation."""
    mask = torch.ones_like(ids)
    started = time.perf_counter()
    model.generate(
        ids, attention_mask=mask, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens,
        pad_token_id=0,
    )  # fmt: skip
    if ids.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


class Clocked(Attachment):
    """An attachment that knows how long its hooks take."""

    inside = 0.0

    def _before(self, *args: Any) -> None:
        started = time.perf_counter()
        super()._before(*args)
        self.inside += time.perf_counter() - started

    def _after_forward(self, *args: Any) -> None:
        started = time.perf_counter()
        super()._after_forward(*args)
        self.inside += time.perf_counter() - started

    def _on_replace(self, *args: Any) -> torch.Tensor | None:
        started = time.perf_counter()
        found = super()._on_replace(*args)
        self.inside += time.perf_counter() - started
        return found


class Times(NamedTuple):
    """Seconds: alone, added by the codebook with its standard error, and in the hooks."""

    alone: float
    added: float
    error: float
    hooks: float


def compared(
    model: Any,
    site: Site,
    view: GracePart,
    prompts: Sequence[torch.Tensor],
    rounds: int,
    tokens: int,
    keys: PooledKeys | None,
) -> Times:
    """Seconds without the codebook, with it, and in the hooks."""
    times: dict[bool, list[float]] = {False: [], True: []}
    inside = []
    for number in range(rounds * len(prompts)):
        ids = prompts[number // 2 % len(prompts)]
        for attached in (False, True) if number % 2 else (True, False):
            if keys is not None:
                keys._keys.clear()  # a prompt that was never asked before,
                keys._spellings.clear()  # of somebody who was never asked about
            hooks = None
            if attached:
                patch = Patch("replace", (site.module,), keys)
                hooks = Clocked(model, site.layout, View("v", (view,)), {view.method: patch})
            times[attached].append(seconds(model, ids, tokens))
            if hooks is not None:
                hooks.remove()
                inside.append(hooks.inside)
    # Rounds come in pairs of one prompt, so that each has both orders.
    shaped = (np.array(times[kind]).reshape(-1, len(prompts), 2) for kind in (False, True))
    plain, attached = (np.percentile(found, 10, axis=(0, 2)) for found in shaped)
    added = attached - plain
    error = float(np.std(added, ddof=1) / np.sqrt(len(added)))
    return Times(
        statistics.median(times[False]), float(added.mean()), error, statistics.median(inside)
    )


def main() -> None:
    """Measures and prints."""
    folder = Path(os.environ.get("EDITKIT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=folder / "zsre.jsonl")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--key", choices=["pooled", "state"], default="pooled")
    parser.add_argument("--device")
    parser.add_argument("--keys", type=int, nargs="*", default=[0, 1_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=40)
    asked: Any = parser.parse_args()
    loaded = load_model(asked.model, device=asked.device)
    model, site = loaded.model, default_site(loaded.model)
    encoder = Encoder(model, loaded.tokenizer)
    lines = itertools.islice(read_requests(asked.data), 512)
    tokens = [encoder.prompt(request.prompt) for _, request in lines]
    prompts = [torch.tensor([ids], device=model.device) for ids in tokens[:PROMPTS]]
    keys = pooled_keys(loaded) if asked.key == "pooled" else None
    real = np.stack(
        [keys.key(ids) if keys else grace.query(model, site, ids).cpu().numpy() for ids in tokens]
    )
    own, real = real[:PROMPTS], real[PROMPTS:]
    place = torch.cuda.get_device_name() if model.device.type == "cuda" else "CPU"
    length = statistics.median(ids.shape[1] for ids in prompts)
    print(f"model {asked.model} at {site.path}, prompts of {length:g} tokens (median)")
    threads, python = torch.get_num_threads(), platform.python_version()
    print(f"{place}, {threads} threads, torch {torch.__version__}, Python {python}")
    print(
        f"{asked.rounds} rounds with each of {PROMPTS} prompts, {asked.key} keys, "
        f"d = {real.shape[1]}"
    )
    print()
    steps = f"{DECODED} decode steps"
    print(f"{'':17s}   prefill, ms                             {steps}, ms         a hit, ms")
    print(
        "     keys  index     alone        added     hooks  share      alone    hooks  share   "
        "first   again"
    )
    for count in asked.keys:
        view = codebook(real, own, count, site, asked.key, asked.device)
        assert view.select(torch.from_numpy(own)).fired == [-1] * PROMPTS
        seconds(model, prompts[0], 2)
        first = compared(model, site, view, prompts, asked.rounds, 1, keys)
        both = compared(model, site, view, prompts[:2], 2, 1 + DECODED, keys)
        fresh, later = decisions(view, own)
        alone, hooks = both.alone - first.alone, both.hooks - first.hooks
        index = (view.memory.table.backend or "none") if count else "none"
        print(
            f"{count:9,d}  {index:7s} {1e3 * first.alone:7.1f} {1e3 * first.added:7.2f} "
            f"+-{1e3 * first.error:.2f} {1e3 * first.hooks:8.3f} {first.hooks / first.alone:6.2%} "
            f"  {1e3 * alone:8.1f} {1e3 * hooks:8.3f} {hooks / alone:6.2%} "
            f"{1e3 * fresh:7.2f} {1e3 * later:7.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
