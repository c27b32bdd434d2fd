"""The key index against brute force: lookup time, memory, and whether the same edits fire.

    python benchmarks/retrieval.py [--device cpu|cuda] [--quick]

Lookups are of one query at a time. Half of the queries lie inside a ball, half are new keys of the
same kind. Brute force is ``torch.cdist`` and the decision taken on its result, same threads, same
run; the ratio is of its median to the mean of ours over near and far queries. *Agreement* is the
share of decisions equal to a full scan with ``editkit.scope.index.distances``. Three kinds of keys,
made up with a seed:

    hidden     like hidden states: a common mean of length 100, 300 relations, facts around them
               with a falling spectrum, a fifth near-duplicates of another key
    isotropic  independent normal entries: nothing for a projection to find
    alike      every key within every other's radius: the worst that there is for pruning, and
               every query hits; up to 100k keys of the smaller width

Radii are between 0.2 and 1 times 0.06 of a key's length.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import faiss
import numpy as np
import torch

from editkit.scope.index import KeyTable, distances

COUNTS = (1_000, 10_000, 100_000, 1_000_000)
WIDTHS = (576, 4096)
SHARE = 1 / 3  # of the memory, for two copies of the keys: the table's and brute force's
LOOKUPS = 200
CHECKED = 6_000_000_000  # key entries that the check may go through per line
PATIENCE = 3_000  # ms after which a median is taken of what there is (five at least)
RADIUS = 0.06


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="up to 10k keys, d = 576")
    asked = parser.parse_args()
    header(asked.device)
    backends = ["faiss", "torch"]
    if asked.device == "cuda":
        backends = (["faiss-gpu"] if faiss.get_num_gpus() else []) + ["torch"]
        print(f"FAISS sees {faiss.get_num_gpus()} GPUs")
    print(
        "     d     keys  kind       backend     near ms   far ms  32 at once  cdist ms   ratio"
        "  agreement     key MB  index MB"
    )
    for width in WIDTHS[: 1 if asked.quick else None]:
        for count in sizes(width, COUNTS[: 2 if asked.quick else None]):
            hard = ("alike",) if width == WIDTHS[0] and count <= 100_000 else ()
            for kind in ("hidden", "isotropic", *hard):
                compare(kind, count, width, backends, asked.device)
    if not asked.quick:
        upkeep(backends, asked.device)
    print(f"load average at the end {os.getloadavg()[0]:.2f}")


def header(device: str) -> None:
    """Prints what it was measured on."""
    name = torch.cuda.get_device_name() if device == "cuda" else processor()
    print(f"{name}, {os.cpu_count()} CPUs, {memory() / 2**30:.0f} GB of memory")
    print(f"threads: torch {torch.get_num_threads()}, faiss {faiss.omp_get_max_threads()}")
    print(
        f"python {platform.python_version()}, numpy {np.__version__},"
        f" torch {torch.__version__}, faiss {faiss.__version__}"
    )
    print(f"load average at the start {os.getloadavg()[0]:.2f}; medians, milliseconds a query")


def processor() -> str:
    """Returns the processor's name."""
    with open("/proc/cpuinfo") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def memory() -> int:
    """Returns the machine's memory, bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def sizes(width: int, counts: tuple[int, ...]) -> list[int]:
    """Returns the counts that fit; says what is left out, and what is run instead."""
    most = int(SHARE * memory() / (2 * 4 * width))
    fitting = [count for count in counts if count <= most]
    for count in counts[len(fitting) :]:
        needed = 2 * 4 * width * count / 2**30
        line = f"left out: {count} keys of d = {width} (two copies are {needed:.1f} GB)"
        smaller = most // 10 ** (len(str(most)) - 1) * 10 ** (len(str(most)) - 1)
        if smaller > fitting[-1]:
            fitting.append(smaller)
            line += f"; {smaller} instead"
        print(line)
    return fitting


def make(kind: str, count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Returns keys, ``(count, width)`` float32."""
    keys = rng.standard_normal((count, width), dtype=np.float32)
    if kind == "isotropic":
        return keys
    if kind == "alike":
        return 1 + keys / np.float32(100)
    shape = np.random.default_rng(1)  # mean, relations and spectrum are those of one model
    spectrum = np.arange(1, width + 1) ** -0.5
    spectrum = (spectrum / np.linalg.norm(spectrum)).astype(np.float32)
    mean = shape.standard_normal(width)
    relations = 30 * spectrum * shape.standard_normal((300, width))
    relations = (relations + 100 * mean / np.linalg.norm(mean)).astype(np.float32)
    keys *= 15 * spectrum
    relation = rng.integers(300, size=count)
    for start in range(0, count, 10_000):  # in parts, for memory's sake
        keys[start : start + 10_000] += relations[relation[start : start + 10_000]]
    twins = count // 5
    step = 4 / width**0.5 * rng.standard_normal((twins, width), dtype=np.float32)
    keys[-twins:] = keys[:twins] + step
    return keys


def compare(kind: str, count: int, width: int, backends: list[str], device: str) -> None:
    """Prints the lines of one set of keys."""
    rng = np.random.default_rng(0)
    keys = make(kind, count, width, rng)
    radii = RADIUS * np.linalg.norm(keys[0]) * rng.uniform(0.2, 1, count)
    radii = radii.astype(np.float32)
    chosen = rng.integers(count, size=LOOKUPS // 2)
    off = rng.standard_normal((len(chosen), width))
    off *= (0.5 * radii[chosen] / np.linalg.norm(off, axis=1))[:, None]
    near = (keys[chosen] + off).astype(np.float32)
    far = make(kind, LOOKUPS // 2, width, np.random.default_rng(2))[: LOOKUPS // 2]
    queries = np.concatenate([near, far])
    brute, found_brute = brute_force(keys, radii, queries, device)
    checked = max(10, min(LOOKUPS, CHECKED // (count * width)))
    sampled = np.linspace(0, LOOKUPS - 1, checked).astype(int)
    truth = [full_scan(keys, radii, query) for query in queries[sampled]]
    for name in backends:
        table = KeyTable(width, backend=name, device=device)
        table.add(keys)
        looks = [partial(table.select, query, radii) for query in queries[:, None]]
        middle = LOOKUPS // 2
        near_ms, far_ms = median(looks[:middle]), median(looks[middle:])
        at_once = statistics.median(
            clock(partial(table.select, queries[:32], radii)) for _ in range(9)
        )
        decided = table.select(queries, radii)
        agreement = np.mean(decided[sampled] == truth)
        ratio = 2 * brute / (near_ms + far_ms)
        print(
            f"{width:6} {count:8}  {kind:9}  {name:9} {near_ms:9.3f}{far_ms:9.3f}"
            f"{at_once / 32:12.3f}{brute:10.2f}{ratio:8.1f}  {agreement:.3f}"
            f"/{checked:<4} {table.nbytes / 1e6:9.1f} {table.index_nbytes / 1e6:9.1f}",
            flush=True,
        )
    seen = np.mean([found == true for found, true in zip(found_brute, decided, strict=False)])
    if seen < 1:
        print(f"       (cdist decides as the full scan for {seen:.3f} of its {len(found_brute)})")


def full_scan(keys: np.ndarray, radii: np.ndarray, query: np.ndarray) -> int:
    """Returns the row that fires, every row measured."""
    found = distances(keys, query)
    inside = np.where(found <= radii, found, np.inf)
    last = len(keys) - 1 - int(inside[::-1].argmin())
    return last if np.isfinite(inside[last]) else -1


def brute_force(
    keys: np.ndarray, radii: np.ndarray, queries: np.ndarray, device: str
) -> tuple[float, list[int]]:
    """Returns the median time of a lookup with ``torch.cdist``, and its decisions."""
    there, limits = torch.from_numpy(keys).to(device), torch.from_numpy(radii).to(device)
    decided: list[int] = []

    def look_up(query: np.ndarray) -> None:
        found = torch.cdist(torch.from_numpy(query[None]).to(device), there)[0]
        inside = found.masked_fill(found > limits, torch.inf)
        nearest = int(inside.argmin())
        decided.append(nearest if float(inside[nearest]) < torch.inf else -1)

    brute = median([partial(look_up, query) for query in queries])
    return brute, decided[1:]  # the first one warms up


def upkeep(backends: list[str], device: str) -> None:
    """Prints how long filling, one more key, and clearing dead rows take."""
    print("\nupkeep of 100000 keys, kind hidden: seconds to build, ms for one more key,")
    print("seconds to kill a quarter and build anew")
    for width in WIDTHS:
        keys = make("hidden", 100_000, width, np.random.default_rng(0))
        for name in backends:
            builds = []
            for _ in range(3):
                table = KeyTable(width, backend=name, device=device)
                builds.append(clock(partial(table.add, keys)) / 1000)
            one_more = median([partial(table.add, keys[at : at + 1]) for at in range(50)])
            cleared = clock(partial(table.kill, range(25_025))) / 1000
            print(
                f"d = {width:4}  {name:9} build {statistics.median(builds):6.3f} s"
                f"   add {one_more:6.3f} ms   clear {cleared:6.3f} s",
                flush=True,
            )


def median(works: Sequence[Callable[[], Any]]) -> float:
    """Returns the median time of some works, milliseconds; the first is done once before."""
    works[0]()
    times: list[float] = []
    for work in works:
        times.append(clock(work))
        if sum(times) > PATIENCE and len(times) >= 5:
            break
    return statistics.median(times)


def clock(work: Callable[[], Any]) -> float:
    """Returns how long it takes, milliseconds (whatever is decided has left the device)."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    main()
