"""What serving costs and gains: a load from another process on loopback.

    python benchmarks/serving.py [--model NAME] [--rounds R] [--window S] [--tokens N] [--threads T]
    python benchmarks/serving.py --soak MINUTES

`editkit serve` runs in a process of its own; this one asks it, and also runs the same model by
plain `transformers` `generate`, greedily, on as many threads.

One at a time: every prompt is completed in turn by plain with the server's process stopped
(SIGSTOP), plain beside the idle server, one client, and one client that streams, so that what is
compared is seconds apart. Then windows of each kind, in an order that turns: plain again, eight
clients, and one and eight clients while an editor corrects the model without pause; in a window
each client asks one prompt after the other. Reported are completions, tokens a second (of a
completion or of a window, the median), latencies of completions, ratios to plain of the same turn
or round (their median), and the processor time that the model's process took for a token, which
other work on the machine disturbs less. Then: the seconds from sending `POST /v1/edits` to holding
the corrected completion.

With `--soak`, 8 readers and 2 editors work for so many minutes: no error, no answer of a known edit
that is wrong, no edit lost, and the server's resident memory every minute.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import torch

from editkit.models import load_model

PROMPTS = (
    "The capital of Australia is",
    "Once upon a time, in a village by the sea,",
    "The three primary colours are",
    "To bake a loaf of bread, first",
    "In the year 1969, the first people",
    "A good friend is somebody who",
    "Water boils when",
    "The longest river of Europe",
)
KNOWN = ("The code word of the seventh fleet is", "Canberra")
CLIENTS = 8


@dataclass
class Window:
    """What was asked in one window."""

    elapsed: float = 0.0
    tokens: int = 0
    cpu: float = 0.0  # seconds of processor time, of the process that runs the model
    latencies: list[float] = field(default_factory=list)  # seconds of each completion

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.elapsed


Ask = Callable[[str], int]
"""Completes a prompt; returns how many tokens came."""


def window(asks: Sequence[Ask], seconds: float, cpu: Callable[[], float]) -> Window:
    """Asks one prompt after the other until the time is up, each client in a thread."""
    found = Window()
    start, used = time.perf_counter(), cpu()

    def work(number: int, ask: Ask) -> None:
        turn = number
        while time.perf_counter() - start < seconds:
            began = time.perf_counter()
            tokens = ask(PROMPTS[turn % len(PROMPTS)])
            found.latencies.append(time.perf_counter() - began)
            found.tokens += tokens  # one bytecode would do; a lost update would show as a dip
            turn += 1

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(asks)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    found.elapsed, found.cpu = time.perf_counter() - start, cpu() - used
    return found


def alone(ask: Ask, prompt: str, cpu: Callable[[], float]) -> Window:
    """Asks one prompt."""
    found = Window()
    start, used = time.perf_counter(), cpu()
    found.tokens = ask(prompt)
    found.elapsed, found.cpu = time.perf_counter() - start, cpu() - used
    found.latencies.append(found.elapsed)
    return found


class Server:
    """`editkit serve` in a process of its own."""

    def __init__(self, folder: Path, model: str, threads: int) -> None:
        store = folder / "history.db"
        self.run = subprocess.Popen(
            [sys.executable, "-m", "editkit_cli", "serve", "--store", str(store), "--model", model,
             "--port", "0", "--quiet"],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip
        assert self.run.stdout is not None
        if not self.run.stdout.readline():
            sys.exit("the server did not start")
        owner = json.loads(Path(f"{store}.server").read_text())
        self.url = f"http://{owner['host']}:{owner['port']}"
        self._key = {"Authorization": f"Bearer {owner['token']}"}
        with self.client() as client:
            self.model = client.get("/v1/models").json()["data"][0]["id"]

    def client(self) -> httpx.Client:
        """A client that keeps its connection."""
        return httpx.Client(base_url=self.url, headers=self._key, timeout=300)

    def asker(self, client: httpx.Client, tokens: int, *, streams: bool = False) -> Ask:
        """Completes by HTTP."""

        def ask(prompt: str) -> int:
            body = {"model": self.model, "prompt": prompt, "max_tokens": tokens}
            if not streams:
                said = client.post("/v1/completions", json=body).raise_for_status().json()
                return int(said["usage"]["completion_tokens"])
            body |= {"stream": True, "stream_options": {"include_usage": True}}
            with client.stream("POST", "/v1/completions", json=body) as stream:
                lines = [line for line in stream.iter_lines() if line.startswith("data: {")]
            return int(json.loads(lines[-1][6:])["usage"]["completion_tokens"])

        return ask

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Takes the server's process off the processor."""
        self.run.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.run.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def learning(self, names: Iterator[str]) -> Iterator[list[float]]:
        """Corrects the model without pause meanwhile; yields the seconds of each edit."""
        done, took = threading.Event(), list[float]()

        def work() -> None:
            with self.client() as client:
                while not done.is_set():
                    began = time.perf_counter()
                    edit(client, next(names), "Canberra")
                    took.append(time.perf_counter() - began)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield took
        finally:
            done.set()
            thread.join()

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.run.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Resident megabytes."""
        text = Path(f"/proc/{self.run.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1024

    def end(self) -> None:
        """Ends it in order."""
        self.run.terminate()
        self.run.wait(120)


def edit(client: httpx.Client, prompt: str, target: str) -> str:
    """Adds an edit; returns its id."""
    said = client.post("/v1/edits", json={"prompt": prompt, "target": target})
    said.raise_for_status()
    if not said.json()["verified"]:
        sys.exit(f"the edit of '{prompt}' did not verify")
    return str(said.json()["edit"]["id"])


def code_words() -> Iterator[str]:
    """Yields prompts that nobody has corrected yet."""
    number = 0
    while True:
        number += 1
        yield f"The code word of expedition {number} to the mountain K{number % 97} is"


def plain_asker(model: Any, tokenizer: Any, tokens: int) -> Ask:
    """Completes by `transformers` alone."""

    def ask(prompt: str) -> int:
        found = tokenizer(prompt, return_tensors="pt")
        with torch.no_grad():
            out = model.generate(**found, do_sample=False, max_new_tokens=tokens, pad_token_id=0)
        new = out[0, found["input_ids"].shape[1] :]
        tokenizer.decode(new, skip_special_tokens=True)
        return len(new)

    return ask


def measure(server: Server, model: str, rounds: int, seconds: float, tokens: int) -> None:
    """Measures and prints."""
    loaded = load_model(model)
    plain = plain_asker(loaded.model.eval(), loaded.tokenizer, tokens)
    names = code_words()
    took: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(CLIENTS)]
        asks = [server.asker(client, tokens) for client in clients]
        streaming = server.asker(clients[0], tokens, streams=True)
        for prompt in PROMPTS:
            if plain(prompt) != asks[0](prompt):
                sys.exit(f"plain and served answers to '{prompt}' have different lengths")

        def stopped(run: Callable[[], Window]) -> Window:
            with server.stopped():
                return run()

        def learning(kind: str, several: Sequence[Ask]) -> Window:
            with server.learning(names) as times:
                found = window(several, seconds, server.cpu)
            took.setdefault(kind, []).extend(times)
            return found

        singly: dict[str, Callable[[Any], Window]] = {
            "plain": lambda prompt: stopped(lambda: alone(plain, prompt, time.process_time)),
            "plain, idle server": lambda prompt: alone(plain, prompt, time.process_time),
            "one client": lambda prompt: alone(asks[0], prompt, server.cpu),
            "one, streaming": lambda prompt: alone(streaming, prompt, server.cpu),
        }
        report(rounds_of(singly, list(PROMPTS) * rounds), took)
        together: dict[str, Callable[[Any], Window]] = {
            "plain": lambda _: stopped(lambda: window([plain], seconds, time.process_time)),
            "eight clients": lambda _: window(asks, seconds, server.cpu),
            "one, learning": lambda _: learning("one, learning", asks[:1]),
            "eight, learning": lambda _: learning("eight, learning", asks),
        }
        report(rounds_of(together, range(rounds)), took)
        times = []
        for _ in range(8):
            began, name = time.perf_counter(), next(names)
            edit(clients[0], name, "Canberra")
            body = {"model": server.model, "prompt": name, "max_tokens": tokens}
            said = clients[0].post("/v1/completions", json=body).json()
            if said["choices"][0]["text"] != "Canberra":
                sys.exit(f"'{name}' is answered by {said['choices'][0]['text']!r}")
            times.append(time.perf_counter() - began)
    print(
        f"from POST /v1/edits to the corrected completion, idle server, {len(times)} edits: "
        f"median {statistics.median(times):.2f} s, slowest {max(times):.2f} s"
    )


def rounds_of(
    kinds: dict[str, Callable[[Any], Window]], turns: Sequence[Any]
) -> dict[str, list[Window]]:
    """Measures each kind once a turn, in an order that turns as well."""
    found: dict[str, list[Window]] = {kind: [] for kind in kinds}
    for number, turn in enumerate(turns):
        first = number % len(kinds)
        for kind in [*kinds][first:] + [*kinds][:first]:
            found[kind].append(kinds[kind](turn))
        print(f"turn {number + 1} of {len(turns)}", file=sys.stderr)
    return found


def report(found: dict[str, list[Window]], took: dict[str, list[float]]) -> None:
    """Prints a row a kind; ``took`` has the seconds of each edit, of those kinds that learn."""
    print(f"{'':<20}completions  tokens/s  to plain  CPU, ms/token  p50, s  p99, s  edits  s each")
    for kind, windows in found.items():
        ratios = [one.rate / base.rate for one, base in zip(windows, found["plain"], strict=True)]
        latencies = [second for one in windows for second in one.latencies]
        edits = took.get(kind, [])
        learned = f"{len(edits):>7}{statistics.median(edits):>8.2f}" if edits else ""
        print(
            f"{kind:<20}{len(latencies):>11}"
            f"{statistics.median(one.rate for one in windows):>10.1f}"
            f"{statistics.median(ratios):>10.3f}"
            f"{1000 * statistics.median(one.cpu / one.tokens for one in windows):>15.1f}"
            f"{statistics.median(latencies):>8.3f}"
            f"{percentile(latencies, 0.99):>8.3f}{learned}"
        )
    print()


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share is not above."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def soak(server: Server, minutes: float, tokens: int) -> bool:
    """Lets readers and editors work; returns whether all went well."""
    names, lock, done = code_words(), threading.Lock(), threading.Event()
    errors: list[str] = []
    active: set[str] = set()
    counts = {"completions": 0, "edits": 0, "reverts": 0}
    with server.client() as client:
        active.add(edit(client, *KNOWN))

    def working(act: Callable[[httpx.Client, int], None]) -> None:
        with server.client() as client:
            turn = 0
            while not done.is_set():
                turn += 1
                try:
                    act(client, turn)
                except Exception as error:
                    errors.append(repr(error))

    def read(client: httpx.Client, turn: int) -> None:
        prompt, wanted = KNOWN if turn % 4 == 0 else (PROMPTS[turn % len(PROMPTS)], None)
        body = {"model": server.model, "prompt": prompt, "max_tokens": tokens}
        text = client.post("/v1/completions", json=body).raise_for_status().json()
        if wanted not in (None, text["choices"][0]["text"]):
            errors.append(f"the known edit was answered by {text['choices'][0]['text']!r}")
        with lock:
            counts["completions"] += 1

    def correct(client: httpx.Client, turn: int) -> None:
        with lock:
            name = next(names)
        made = edit(client, name, "Canberra")
        if turn % 3 == 0:
            client.delete(f"/v1/edits/{made}").raise_for_status()
        with lock:
            counts["edits"] += 1
            counts["reverts"] += turn % 3 == 0
            if turn % 3:
                active.add(made)

    acts = [read] * CLIENTS + [correct] * 2
    threads = [threading.Thread(target=working, args=(act,)) for act in acts]
    for one in threads:
        one.start()
    print(f"{'minute':>6}{'completions':>13}{'edits':>7}{'reverts':>9}{'errors':>8}{'RSS, MB':>9}")
    start = time.monotonic()
    while (passed := (time.monotonic() - start) / 60) < minutes and server.run.poll() is None:
        print(f"{passed:>6.1f}" + told(counts, errors, server), flush=True)
        time.sleep(min(60.0, max(0.0, minutes * 60 - passed * 60)))
    done.set()
    for one in threads:
        one.join()
    with server.client() as client:
        print("   end" + told(counts, errors, server))
        there = {one["id"] for one in client.get("/v1/edits?limit=1000").json()}
        verified = client.get("/v1/verify").json()["ok"]
    print(f"lost edits: {len(active - there)}; edits too many: {len(there - active)}; "
          f"history verified: {verified}; first errors: {errors[:3]}")  # fmt: skip
    return not errors and there == active and verified


def told(counts: dict[str, int], errors: Sequence[str], server: Server) -> str:
    """Counts so far, as a row."""
    return (
        f"{counts['completions']:>13}{counts['edits']:>7}{counts['reverts']:>9}{len(errors):>8}"
        f"{server.memory():>9.0f}"
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--window", type=float, default=5.0, help="seconds")
    parser.add_argument("--tokens", type=int, default=24, help="of a completion")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), given.model, given.threads)
        try:
            print(
                f"{given.model}, {given.tokens} tokens a completion, CPU, {given.threads} threads, "
                f"torch {torch.__version__}, Python {platform.python_version()}"
            )
            if given.soak is None:
                print(f"{given.rounds} rounds, windows of {given.window:g} s\n")
                measure(server, given.model, given.rounds, given.window, given.tokens)
            elif not soak(server, given.soak, given.tokens):
                sys.exit(1)
        finally:
            server.end()


if __name__ == "__main__":
    main()
