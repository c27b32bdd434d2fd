"""How the first edits of zsRE go: verified in free generation, retained, and how long each takes.

    python benchmarks/first_edits.py [--data FILE] [--count N] [--model NAME] [--preset P]

Edits are added one at a time to an empty history, as `editkit add` does; then all prompts are asked
again. Data: `zsre.jsonl` in the folder EDITKIT_DATA, by default `../shared/data`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

import editkit
from editkit.editing.files import read_requests


def main() -> None:
    """Measures and prints."""
    folder = os.environ.get("EDITKIT_DATA", Path(__file__).parents[2] / "shared" / "data")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=str(Path(folder) / "zsre.jsonl"))
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--preset", default="default", choices=["default", "paper"])
    asked: Any = parser.parse_args()
    lines = itertools.islice(read_requests(asked.data), asked.count)
    requests = [request for _, request in lines]
    with (
        tempfile.TemporaryDirectory() as work,
        editkit.open(Path(work) / "h.db", model=asked.model, preset=asked.preset) as kit,
    ):
        added = [kit.add_many([request])[0] for request in requests]
        newest = {request.prompt: request.target for request in requests}
        kept = [
            kit.generate(prompt, delivery="free").text == target
            for prompt, target in newest.items()
        ]
        rephrased = [
            kit.generate(text, max_new_tokens=24, delivery="free").text == request.target
            for request in requests
            for text in request.rephrases
        ]
        probes = [text for request in requests for text in request.locality]
        same = [
            kit.generate(text, max_new_tokens=24, delivery="free").text
            == kit.generate(text, version="v0", max_new_tokens=24, delivery="free").text
            for text in probes
        ]
        times = sorted(result.seconds for result in added)
    print(f"model {asked.model}, preset {asked.preset}, {torch.get_num_threads()} threads")
    print(f"edits                 {len(added)}")
    print(f"verified              {sum(result.verified for result in added)}")
    print(f"retained after all    {sum(kept)} of {len(kept)} prompts")
    print(f"rephrases answered    {sum(rephrased)} of {len(rephrased)}")
    print(f"probes unchanged      {sum(same)} of {len(same)}")
    print(f"optimizer steps       median {statistics.median(r.steps for r in added)}")
    print(f"seconds an edit       median {statistics.median(times):.2f}, worst {times[-1]:.2f}")


if __name__ == "__main__":
    main()
