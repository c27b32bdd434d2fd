"""How long an edit takes, against the reference loop, and how reliable both are.

    python benchmarks/edit_latency.py [--kind fact|passage] [--count N] [--model NAME] [--device D]
                                      [--margin LOGITS]

The reference is the loop of the published implementations, written out: one edit at a time, a
random initial value, 50 steps of Adam at learning rate 1.0, each a full forward pass over prompt
and target and a backward pass (nothing but the value requires gradients), at the paper's site; the
value replaces the last prompt token's output. It is timed without any verification. Ours is
`kit.add`: learning, verification by free generation and the transaction together.

Both learn the same edits with the same end-of-text token behind the target, in one process, on the
same threads. Reliable means that free greedy generation, asked after the clock has stopped, gives
the target's tokens and then ends.
Edits alternate between the two, so a machine that gets slower slows both.

Data: `zsre.jsonl` or `wikibio.jsonl` in the folder EDITKIT_DATA, by default `../shared/data`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import editkit
from editkit.editing.files import read_requests
from editkit.engines.base import Encoded
from editkit.engines.transformers.batches import lay_out
from editkit.engines.transformers.site import default_site, find_site
from editkit.engines.transformers.tokens import Encoder
from editkit.methods.grace import learning as grace
from editkit.methods.grace.config import GraceConfig
from editkit.models import load_model

STEPS = 50


def reference(
    model: Any, module: torch.nn.Module, width: int, edit: Encoded
) -> tuple[torch.Tensor, float]:
    """The published loop for one edit; returns the value and its wall-clock seconds."""
    started = time.perf_counter()
    ids = torch.tensor([[*edit.prompt, *edit.target]], device=model.device)
    labels = torch.tensor([[-100] * len(edit.prompt) + list(edit.target)], device=model.device)
    at = len(edit.prompt) - 1
    value = torch.rand(1, 1, width, device=model.device).requires_grad_(True)

    def put(_: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        replaced = output.clone()
        replaced[:, at : at + 1] = value.to(output.dtype)
        return replaced

    handle = module.register_forward_hook(put)
    optimizer = torch.optim.Adam([value], lr=1.0)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
    handle.remove()
    synchronize(model)
    return value.detach(), time.perf_counter() - started


def is_reliable(model: Any, module: torch.nn.Module, value: torch.Tensor, edit: Encoded) -> bool:
    """Whether free greedy generation gives the target's tokens and then ends."""
    at = len(edit.prompt) - 1

    def put(_: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        if output.shape[1] <= at:
            return output  # a decoded token
        replaced = output.clone()
        replaced[:, at : at + 1] = value.to(output.dtype)
        return replaced

    handle = module.register_forward_hook(put)
    ids = torch.tensor([edit.prompt], device=model.device)
    with torch.no_grad():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False,
            max_new_tokens=len(edit.target), pad_token_id=0,
        )  # fmt: skip
    handle.remove()
    return bool(out[0, len(edit.prompt) :].tolist() == list(edit.target))


def synchronize(model: Any) -> None:
    """Waits for the device, so that clocks mean something there."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


def parts(kit: Any, edit: Encoded, config: Any) -> tuple[float, float, int]:
    """Seconds of one prefill, of the passes from the site on, and how many these were."""
    model, site = kit.model, find_site(kit.model, kit.site)
    batch = lay_out(model, site.layout, [edit], replacement="last", position=None)
    with torch.no_grad():
        started = time.perf_counter()
        batch.begin()
        synchronize(model)
        passed = time.perf_counter()
    (learned,) = grace.learn(model, site, [edit], config)
    synchronize(model)
    prefill, both = passed - started, time.perf_counter() - passed
    return prefill, both - prefill, learned.steps + 1


def main() -> None:
    """Measures and prints."""
    folder = Path(os.environ.get("EDITKIT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=["fact", "passage"], default="fact")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--margin", type=float, default=GraceConfig().margin, help="Of ours")
    asked: Any = parser.parse_args()
    file = asked.data or folder / ("zsre.jsonl" if asked.kind == "fact" else "wikibio.jsonl")
    requests = [
        request.model_copy(update={"kind": asked.kind})
        for _, request in itertools.islice(read_requests(file), asked.count)
    ]
    loaded = load_model(asked.model, device=asked.device)
    encoder = Encoder(loaded.model, loaded.tokenizer)
    edits = [encoder.request(request) for request in requests]
    site = default_site(loaded.model, preset="paper")
    for parameter in loaded.model.parameters():
        parameter.requires_grad_(False)
    torch.manual_seed(0)
    loaded.model.generation_config.eos_token_id = list(encoder.stop_ids)
    pair = (loaded.model, loaded.tokenizer)
    literal: list[float] = []
    spent: list[tuple[float, float, int]] = []
    hits = answered = 0
    with tempfile.TemporaryDirectory() as work:
        ours, alone = [], []
        settings = {"margin": asked.margin}
        with editkit.open(Path(work) / "one.db", model=pair, grace=settings) as kit:
            # The parts are timed with what the kit learns with.
            config = kit.methods.of("grace").config
            kit.add("This is a first call, which no clock should see.", "Indeed")
            kit.undo()
            untouched = kit._running.view("v0")
            for request, edit in zip(requests, edits, strict=True):
                with kit._running.engine.running(untouched):
                    value, seconds = reference(loaded.model, site.module, site.width, edit)
                    literal.append(seconds)
                    hits += is_reliable(loaded.model, site.module, value, edit)
                started = time.perf_counter()
                ours.append(kit.add_many([request])[0])
                synchronize(loaded.model)
                alone.append(time.perf_counter() - started)
                said = kit.generate(
                    request.prompt, max_new_tokens=len(edit.target) + 4, delivery="free"
                )
                answered += said.text == edit.text
                with kit._running.engine.running(untouched):
                    spent.append(parts(kit, edit, config))
        with editkit.open(Path(work) / "many.db", model=pair, grace=settings) as kit:
            started = time.perf_counter()
            together = kit.add_many(requests)
            synchronize(loaded.model)
            batched = (time.perf_counter() - started) / len(requests)
            newest = {r.prompt: edit.text for r, edit in zip(requests, edits, strict=True)}
            longest = max(len(edit.target) for edit in edits) + 4
            all_said = kit.generate(list(newest), max_new_tokens=longest, delivery="free")
            kept = sum(s.text == t for s, t in zip(all_said, newest.values(), strict=True))
    mean, one = statistics.mean(literal), statistics.mean(alone)
    prefill, steps, count = (statistics.mean(column) for column in zip(*spent, strict=True))
    floor = prefill + steps
    place = torch.cuda.get_device_name() if loaded.model.device.type == "cuda" else "CPU"
    threads, python = torch.get_num_threads(), platform.python_version()
    prompt = statistics.median(len(edit.prompt) for edit in edits)
    target = statistics.median(len(edit.target) for edit in edits)
    print(
        f"model {asked.model}, {len(edits)} edits of {file.name}, kind {asked.kind}, "
        f"margin {asked.margin:g}"
    )
    print(f"{place}, {threads} threads, torch {torch.__version__}, Python {python}")
    print(f"prompt tokens, median {prompt:g}; target tokens, median {target:g}")
    print()
    print("                            s/edit: mean  median   worst   ratio   reliable")
    for name, times, reliable in (
        ("reference loop, 50 steps", literal, hits),
        ("kit.add, one at a time", alone, answered),
    ):
        own = statistics.mean(times)
        print(
            f"{name:28s} {own:11.3f} {statistics.median(times):7.3f} {max(times):7.3f} "
            f"{mean / own:6.1f}x   {reliable} of {len(edits)}"
        )
    verified = sum(result.verified for result in together)
    print(
        f"{'kit.add_many, batches':28s} {batched:11.3f} {'':15s} {mean / batched:6.1f}x   "
        f"{verified} of {len(edits)}"
    )
    print(f"still held after all of them, batches: {kept} of {len(newest)} prompts")
    most = max(result.steps for result in ours)
    print(f"optimizer steps of ours: median {statistics.median(r.steps for r in ours):g}, "
          f"most {most}")  # fmt: skip
    print()
    print("where the time of one kit.add goes, means of parts measured beside it, seconds")
    print(f"  {prefill:.3f}  prefill of prompt and target, once")
    print(f"  {steps:.3f}  {count:.1f} passes forward and backward from the site on")
    print(f"  {one - floor:.3f}  verification and the transaction")
    print(f"floor (one prefill and the passes from the site on): {floor:.3f}")
    print(f"kit.add takes {one / floor:.1f} times that")


if __name__ == "__main__":
    main()
