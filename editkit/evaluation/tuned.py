"""Baselines that train weights: one layer of the model itself, or plain LoRA.

These are the alternatives to an editing method. Both train on the edits in order, in small batches,
until the target is learned; nothing protects earlier edits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from editkit.errors import UnsupportedModel
from editkit.evaluation.contestants import Contestant
from editkit.models.load import ModelSpec
from editkit_store.records import EditRequest

__all__ = ["FineTuning", "Lora"]

_STEPS = 25
_ENOUGH = 1e-2  # loss in nats at which a target counts as learned

_IGNORED = -100


class _Tuned(Contestant):
    """Trains some of the model's weights on each batch of edits."""

    together = 1
    rate: float
    steps = _STEPS

    def __init__(self, name: str, model: ModelSpec, folder: Path, **options: Any) -> None:
        super().__init__(name, model, folder, **options)
        # A kit does not change the model's weights, but these baselines train them.
        self._flags = {p: p.requires_grad for p in self.kit.model.parameters()}
        self._weights = dict(self._chosen())
        if not self._weights:
            raise UnsupportedModel(f"'{name}' found nothing to train in this model")
        self._before = {key: weight.detach().clone() for key, weight in self._weights.items()}

    def _chosen(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yields the weights to train."""
        raise NotImplementedError

    def edit(self, requests: Sequence[EditRequest]) -> list[str]:
        """Trains until the targets are learned or the maximum number of steps is reached."""
        model = self.kit.model
        inputs, labels = self._problem(requests)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        weights = list(self._weights.values())
        for weight in weights:
            weight.requires_grad_(True)
        optimizer = torch.optim.Adam(weights, lr=self.rate)
        try:
            for _ in range(self.steps):
                with torch.enable_grad():
                    loss = model(**inputs, labels=labels).loss
                if float(loss.detach()) < _ENOUGH:
                    break
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        finally:
            for weight in weights:
                weight.grad = None
        return super().edit(requests)

    def _problem(self, requests: Sequence[EditRequest]) -> tuple[dict[str, Any], torch.Tensor]:
        """Returns prompts with their targets, padded, and labels on the targets only."""
        encoder = self.kit.encoder
        encoded = [encoder.request(request) for request in requests]
        device = self.kit.model.device
        if encoder.family == "decoder":
            rows = [[*one.prompt, *one.target] for one in encoded]
            marked = [[_IGNORED] * len(one.prompt) + list(one.target) for one in encoded]
        else:
            rows = [list(one.prompt) for one in encoded]
            marked = [list(one.target) for one in encoded]
        width, length = max(map(len, rows)), max(map(len, marked))
        ids = torch.tensor([row + [encoder.pad_id] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        labels = torch.tensor([row + [_IGNORED] * (length - len(row)) for row in marked])
        if encoder.family == "classifier":
            labels = labels[:, 0]
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        return inputs, labels.to(device)

    def save(self) -> None:
        """Saves the trained weights."""
        kept = {key: weight.detach().clone() for key, weight in self._weights.items()}
        save_file(kept, self.folder / "weights.safetensors")

    def restore(self, cases: Sequence[EditRequest]) -> None:
        """Restores the saved weights."""
        self._put(load_file(self.folder / "weights.safetensors"))
        self.done = len(cases)

    def close(self) -> None:
        """Restores the model's own weights."""
        self._put(self._before)
        for parameter, flag in self._flags.items():
            parameter.requires_grad_(flag)
        super().close()

    def _put(self, weights: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for key, weight in self._weights.items():
                weight.copy_(weights[key])


class FineTuning(_Tuned):
    """Fine-tuning of one module: the one that GRACE would edit."""

    rate = 5e-4

    def settings(self) -> dict[str, str]:
        """Returns what is trained and how."""
        return {
            "trained": self.kit.site,
            "optimizer": f"Adam, {self.rate:g}",
            "steps": f"at most {self.steps} an edit, until {_ENOUGH} nats",
        }

    def _chosen(self) -> Iterator[tuple[str, nn.Parameter]]:
        module = self.kit.model.get_submodule(self.kit.site)
        for name, weight in module.named_parameters():
            if weight.is_floating_point():
                yield name, weight


class Lora(_Tuned):
    """One LoRA (Hu et al. 2021, arXiv 2106.09685) on the layers that PEFT chooses by default."""

    rate = 3e-4
    """A rate of 1e-4 learns a third of the edits; for 1e-3 see benchmarks/results/baselines.txt."""
    rank = 8

    def settings(self) -> dict[str, str]:
        """Returns what is trained and how."""
        modules = {key.split(".lora_")[0].split(".")[-1] for key in self._weights}
        return {
            "rank": str(self.rank),
            "modules": ", ".join(sorted(modules)),
            "optimizer": f"Adam, {self.rate:g}",
            "steps": f"at most {self.steps} an edit, until {_ENOUGH} nats",
        }

    def _chosen(self) -> Iterator[tuple[str, nn.Parameter]]:
        config = LoraConfig(
            r=self.rank,
            lora_alpha=2 * self.rank,
            # GPT-2 stores its weights transposed.
            fan_in_fan_out=any(isinstance(m, Conv1D) for m in self.kit.model.modules()),
        )
        torch.manual_seed(0)
        try:
            self._tuner = LoraModel(self.kit.model, config, "default")
        except ValueError as error:
            raise UnsupportedModel(f"PEFT cannot add LoRA to this model: {error}") from error
        for name, weight in self.kit.model.named_parameters():
            if ".lora_" in name:
                yield name, weight

    def close(self) -> None:
        """Removes the LoRA from the model."""
        self._tuner.unload()
        super().close()
