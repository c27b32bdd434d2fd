"""Counters for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from editkit_store.records import Delivered

__all__ = ["Metrics"]


class Metrics:
    """The metrics of a server. Each has its own registry, so that one process can run several."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "editkit_requests", "Requests answered", ["route", "method", "status"],
            registry=self._registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "editkit_request_seconds", "Seconds until a request was answered in full", ["route"],
            registry=self._registry,
            buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
        )  # fmt: skip
        self.prompt_tokens = Counter(
            "editkit_prompt_tokens", "Tokens of prompts", registry=self._registry
        )
        self.generated_tokens = Counter(
            "editkit_generated_tokens", "Tokens generated", registry=self._registry
        )
        self.fired = Counter(
            "editkit_fired", "Answers that an edit applied to", registry=self._registry
        )
        self.delivered = Counter(
            "editkit_delivered",
            "Answers that an edit applied to, by how its target came into them",
            ["delivered"], registry=self._registry,
        )  # fmt: skip
        for value in get_args(Delivered):  # told from the start, as zero
            self.delivered.labels(value)
        self.writes = Counter(
            "editkit_writes", "Changes carried out", ["kind", "state"], registry=self._registry
        )
        self.learning_seconds = Histogram(
            "editkit_learning_seconds", "Seconds to learn and verify an edit",
            registry=self._registry, buckets=(0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64),
        )  # fmt: skip

    def gauge(self, name: str, about: str, value: Callable[[], float]) -> None:
        """Adds a gauge whose value is computed when it is read."""
        Gauge(f"editkit_{name}", about, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """Returns all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
