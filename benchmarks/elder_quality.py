"""Whether ELDER keeps its edits, and leaves the rest alone, as more of them come.

    python benchmarks/elder_quality.py [--model NAME] [--set zsre counterfact ...] [--edits N]
        [--preset default paper] [--rephrases one none] [--at N ...] [--train NAME=JSON ...]

Sequential edits, learned in the preset's batches, on one model. With each edit comes one
rephrasing, as the paper gives it in training, or none. Judged by free greedy generation, exact
match of the whole answer:

reliability: of the edits that no later one of the same prompt contradicts, those whose prompt gives
the target when all edits so far are in place. rephrases: likewise of their first rephrasing, given
or not. unchanged: probes whose answer (16 tokens) is what it was before the first edit; of zsRE
questions of Natural Questions, of CounterFact neighbours of the edited fact. fired: probes for
which an edit fired. general: likewise of 200 beginnings of web pages. codes: distinct ones among
those of the edits, as the routers see their prompts now. s/edit: learning, seconds.

`preset=paper` is the literal procedure: joint training of routers and experts on the batch alone,
published constants. Reads the data beside the project, or in EDITKIT_DATA.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from quality import pages, rows

from editkit.editing.requests import build_request
from editkit.engines.base import Generated, View
from editkit.engines.transformers.attachment import Attachment
from editkit.engines.transformers.generator import Generator
from editkit.engines.transformers.site import default_site
from editkit.engines.transformers.tokens import Encoder
from editkit.evaluation.records import Share
from editkit.methods.elder.config import ElderConfig, TrainConfig
from editkit.methods.elder.learner import ElderLearner
from editkit.methods.elder.part import ElderPart
from editkit.models.load import load_model
from editkit.scope.information import of_model
from editkit.scope.pooled import PooledKeys

SLACK, PROBED = 6, 16


class Stream:
    """One model that learns edits by ELDER, in memory."""

    def __init__(self, name: str, config: ElderConfig, train: TrainConfig) -> None:
        loaded = load_model(name)
        self.model, tokenizer = loaded.model, loaded.tokenizer
        self.encoder = Encoder(self.model, tokenizer)
        known = of_model(self.model, tokenizer, fingerprint=loaded.fingerprint, is_kept=True)
        keys = (
            PooledKeys(self.model, tokenizer, lambda: known) if config.query == "pooled" else None
        )
        site = default_site(self.model)
        self.learner = ElderLearner(
            self.model,
            site.layout,
            encoder=self.encoder,
            keys=keys,
            config=config,
            train=train,
            paused=lambda: self.attachment.paused(),
        )
        self.state = self.learner.blank()
        self.attachment = Attachment(
            self.model, site.layout, self.view(), {"elder": self.learner.patch}
        )
        self.generator = Generator(self.model, self.encoder, self.attachment)
        self.lessons: list[Any] = []

    def view(self) -> View:
        """What is known now, as the model applies it."""
        return View("v", (ElderPart(self.state),))

    def learn(self, edits: Sequence[dict[str, Any]], *, given: bool) -> tuple[int, float]:
        """Learns a batch; returns steps and seconds."""
        started = time.monotonic()
        asked = []
        for edit in edits:
            wordings = [edit["prompt"], *(edit["rephrases"][:1] if given else [])]
            requests = [
                build_request({"prompt": one, "target": edit["target"]}) for one in wordings
            ]
            asked.append((edit["id"], [self.encoder.request(one) for one in requests]))
        new = self.learner.examples(asked)
        learned = self.learner.learn(self.state, new, self.lessons)
        self.lessons += new
        self.state = learned.state
        self.attachment.view = self.view()
        return learned.steps, time.monotonic() - started

    def answers(self, prompts: Sequence[str], limit: int) -> list[Generated]:
        """What the model says now."""
        encoded = [self.encoder.prompt(prompt) for prompt in prompts]
        return self.generator.run(encoded, max_new_tokens=limit)

    def codes(self) -> int:
        """Distinct codes of the edits' prompts, as the routers see them."""
        with torch.no_grad():
            _, _, codes = self.state.encoded(torch.stack([one.queries[0] for one in self.lessons]))
        return len(np.unique(codes, axis=0))


def judged(
    stream: Stream, edits: Sequence[dict[str, Any]], before: Sequence[str], text: Sequence[str]
) -> dict[str, Any]:
    """How things stand after some edits."""
    last = {edit["prompt"]: edit["target"] for edit in edits}
    standing = [edit for edit in edits if last[edit["prompt"]] == edit["target"]]
    ids = [stream.encoder.request(build_request({"prompt": e["prompt"], "target": e["target"]}))
           for e in standing]  # fmt: skip
    limit = max(len(one.target) for one in ids) + SLACK
    said = stream.answers([edit["prompt"] for edit in standing], limit)
    reworded = [edit for edit in standing if edit["rephrases"]]
    again = stream.answers([edit["rephrases"][0] for edit in reworded], limit)
    probed = stream.answers([edit["locality_prompt"] for edit in edits], PROBED)
    read = stream.answers(text, 1)
    wanted = [edit["target"].strip() for edit in standing]
    return {
        "edits": len(edits),
        "reliability": Share.of(one.text == w for one, w in zip(said, wanted, strict=True)),
        "rephrases": Share.of(
            one.text == edit["target"].strip() for one, edit in zip(again, reworded, strict=True)
        ),
        "unchanged": Share.of(one.text == was for one, was in zip(probed, before, strict=False)),
        "fired": float(np.mean([one.fired is not None for one in probed])),
        "general": float(np.mean([one.fired is not None for one in read])),
        "codes": stream.codes(),
    }


def shown(share: Share) -> str:
    """A share with its interval."""
    return (
        "-" if share.value is None else f"{share.value:.3f} ({share.low:.3f} to {share.high:.3f})"
    )


def measure(name: str, asked: Any, preset: str, *, given: bool) -> None:
    """Learns one set and prints how it stands at some points."""
    changes = dict(one.split("=", 1) for one in asked.train)
    train = TrainConfig.of(preset, **{k: json.loads(v) for k, v in changes.items()})
    stream = Stream(asked.model, ElderConfig.of(preset), train)
    edits = rows(name, asked.edits)
    text = [line for line in pages().splitlines() if line][:200]
    text = [" ".join(line.split()[: 8 + 4 * (n % 10)]) for n, line in enumerate(text)]
    probes = [edit["locality_prompt"] for edit in edits]
    before = [one.text for one in stream.answers(probes, PROBED)]
    points = sorted({*(at for at in asked.at if at < len(edits)), len(edits)})
    spent, done = 0.0, 0
    while done < len(edits):
        end = min(done + train.batch_size, next(at for at in points if at > done))
        spent += stream.learn(edits[done:end], given=given)[1]
        done = end
        if done in points:
            found = judged(stream, edits[:done], before, text)
            print(
                f"{name:18s} {preset:8s} {'one' if given else 'none':5s} {done:5d}  "
                f"{shown(found['reliability']):24s}  {shown(found['rephrases']):24s}  "
                f"{shown(found['unchanged']):24s}  {found['fired']:5.3f}  {found['general']:5.3f}  "
                f"{found['codes']:5d}  {spent / done:6.2f}",
                flush=True,
            )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--set", nargs="*", default=["zsre", "counterfact"], dest="sets")
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--preset", nargs="*", default=["default", "paper"])
    parser.add_argument("--at", type=int, nargs="*", default=[10, 50])
    parser.add_argument("--rephrases", nargs="*", choices=["one", "none"], default=["one", "none"])
    parser.add_argument("--train", nargs="*", default=[], help="Fields of TrainConfig: NAME=JSON")
    asked: Any = parser.parse_args()
    print(
        f"{asked.model}, CPU, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, Python {platform.python_version()}"
    )
    print(
        "set                preset   given edits  reliability               rephrases             "
        "    unchanged                 fired  general  codes  s/edit"
    )
    for name in asked.sets:
        for preset in asked.preset:
            for given in asked.rephrases:
                measure(name, asked, preset, given=given == "one")


if __name__ == "__main__":
    main()
