"""ELDER as an ordinary PEFT method: ``get_peft_model``, ``save_pretrained``, ``from_pretrained``.

    import editkit
    from peft import get_peft_model

    model = get_peft_model(base, editkit.ElderConfig(top_k=2))

The adapted layers hold the experts and the routers; the model holds the codes of the edits. Hooks,
which are removed with the adapter, decide once per sequence, at prefill, which experts apply. In
training mode nothing is deferred: every input uses the experts that the routers choose.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn
from transformers import AutoTokenizer

from editkit.engines.base import Part, Patch
from editkit.engines.transformers import training
from editkit.engines.transformers.attachment import Attachment
from editkit.engines.transformers.site import shape_of
from editkit.errors import ModelUnavailable
from editkit.methods.elder import routing
from editkit.methods.elder.part import ElderPart
from editkit.methods.elder.peft import damage
from editkit.methods.elder.peft.config import PeftElderConfig
from editkit.methods.elder.peft.live import Live, LiveKeys
from editkit.methods.elder.places import adapted_paths
from editkit.methods.elder.state import ElderState
from editkit.methods.elder.tensors import METHOD
from editkit.models.identity import fingerprint
from editkit.models.layout import layout_of, text_config
from editkit.scope.information import Information, of_model
from editkit.scope.pooled import PooledKeys

__all__ = ["ElderLinear", "ElderModel"]


class ElderLinear(nn.Module, BaseTunerLayer):  # type: ignore[misc]  # peft has no types
    """A linear map with experts: N LoRAs and a router that chooses among them.

    Attributes:
        elder_A: By adapter, ``(N, r, in)``.
        elder_B: By adapter, ``(N, out, r)``; zero at first, so that a new adapter changes nothing.
        elder_router: By adapter, ``(N, d)`` float32; zero at first.
    """

    adapter_layer_names = ("elder_A", "elder_B", "elder_router")
    other_param_names = ()

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.elder_A = nn.ParameterDict({})
        self.elder_B = nn.ParameterDict({})
        self.elder_router = nn.ParameterDict({})
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        shape = shape_of(cast(Any, self).get_base_layer())
        if shape is None or shape[0] < 1:
            raise TypeError(f"{type(base_layer).__name__} is not a linear map")
        self.in_features, self.out_features = shape

    def update_layer(self, adapter_name: str, config: PeftElderConfig, width: int) -> None:
        """Adds an adapter.

        Args:
            adapter_name: Name of the adapter.
            config: Its config.
            width: Length of a query, d.
        """
        count, rank = config.num_experts, config.r
        down = torch.empty(count, rank, self.in_features)
        # As in LoRA: each expert's matrix is uniform within the bound that preserves the variance.
        nn.init.uniform_(down, -1 / math.sqrt(self.in_features), 1 / math.sqrt(self.in_features))
        self.elder_A[adapter_name] = nn.Parameter(down)
        self.elder_B[adapter_name] = nn.Parameter(torch.zeros(count, self.out_features, rank))
        self.elder_router[adapter_name] = nn.Parameter(torch.zeros(count, width))
        layer: Any = self  # PEFT's methods
        layer._move_adapter_to_device_of_base_layer(adapter_name)
        layer.set_adapter(layer.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Returns the base layer's output; a hook adds the mixture where it applies."""
        return self.base_layer(x, *args, **kwargs)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Raises: the experts depend on the input."""
        raise ValueError("the experts of ELDER depend on the input, so they cannot be merged")

    def __repr__(self) -> str:
        return f"elder.{super().__repr__()}"


class ElderModel(BaseTuner):  # type: ignore[misc]  # peft has no types
    """A model with ELDER adapters, one of them active.

    Attributes:
        elder_codes: By adapter, ``(n, ceil(L N / 8))`` uint8, the packed codes of the edits; their
            ids are in the adapter's config.
        elder_queries: By adapter, ``(m, d)`` float32, the queries of their wordings if the adapter
            has a radius, else empty.
        elder_owners: By adapter, ``(m,)`` int64, the edit of each query.
    """

    prefix: str = "elder_"
    tuner_layer_cls = ElderLinear
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012  (PEFT's attribute; targets are found by structure)
    uses_shared_state: bool = True

    def _pre_injection_hook(
        self, model: nn.Module, config: PeftElderConfig, adapter_name: str
    ) -> None:
        self.elder_codes = BufferDict({}, persistent=True)
        self.elder_queries = BufferDict({}, persistent=True)
        self.elder_owners = BufferDict({}, persistent=True)
        self._layout = layout_of(model)
        self._fingerprint = fingerprint(model)
        self._attachment: Attachment | None = None
        self._keys: PooledKeys | None = None

    def inject_adapter(
        self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any
    ) -> None:
        """Adds an adapter to the model; see ``BaseTuner.inject_adapter``.

        Raises:
            ValueError: It was learned on another model, or does not fit; the model is unchanged.
        """
        config = self.config_of(adapter_name)
        if config.fingerprint not in (None, self._fingerprint):
            raise ValueError(
                f"the adapter was learned on a model with the fingerprint {config.fingerprint}; "
                f"this one has {self._fingerprint}, so its edits would not work here"
            )
        paths = adapted_paths(model, self._layout, config)
        if config.target_modules is None:
            config.target_modules = paths
        config.check_threshold(len(paths))
        others = [m for m in model.modules() if isinstance(m, ElderLinear)]
        if others and [model.get_submodule(path) for path in paths] != others:
            raise ValueError("all ELDER adapters of a model must adapt the same layers")
        theirs = {self.config_of(name).query for name in self.elder_codes}
        if theirs and config.query not in theirs:
            raise ValueError(
                f"all ELDER adapters of a model must use the same kind of query, "
                f"{theirs.pop()!r}, not {config.query!r}"
            )
        config.fingerprint = self._fingerprint
        self._detach()
        try:
            super().inject_adapter(model, adapter_name, *args, **kwargs)
            width = -(-len(paths) * config.num_experts // 8)
            self.elder_codes[adapter_name] = torch.zeros(
                len(config.edits), width, dtype=torch.uint8
            )
            self.elder_queries[adapter_name] = torch.zeros(0, int(text_config(model).hidden_size))
            self.elder_owners[adapter_name] = torch.zeros(0, dtype=torch.int64)
        finally:
            self._attach()

    def _prepare_adapter_config(
        self, peft_config: PeftElderConfig, model_config: dict[str, Any]
    ) -> PeftElderConfig:
        return peft_config

    def _create_and_replace(
        self,
        config: PeftElderConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: Any,
    ) -> None:
        width = int(text_config(self.model).hidden_size)
        if isinstance(target, ElderLinear):
            target.update_layer(adapter_name, config, width)
            return
        new = ElderLinear(target)
        new.update_layer(adapter_name, config, width)
        if adapter_name not in self.active_adapters:
            new.requires_grad_(False)
        self._replace_module(parent, target_name, new, target)

    def config_of(self, adapter_name: str) -> PeftElderConfig:
        """Returns the config of an adapter."""
        found = self.peft_config[adapter_name]
        assert isinstance(found, PeftElderConfig)
        return found

    # State ------------------------------------------------------------------------------------

    def state(self, adapter_name: str | None = None) -> ElderState:
        """Returns an adapter's state; its tensors are the parameters themselves, not copies."""
        name = adapter_name or self.active_adapters[0]
        config, layers = self.config_of(name), self._layers(name)
        return ElderState(
            lora_A=tuple(layer.elder_A[name] for layer in layers),
            lora_B=tuple(layer.elder_B[name] for layer in layers),
            routers=torch.stack(
                [layer.elder_router[name].to(layers[0].elder_router[name]) for layer in layers]
            ).float(),
            codes=self.elder_codes[name].cpu().numpy(),
            edit_ids=tuple(config.edits),
            top_k=config.top_k,
            scaling=config.scaling,
            threshold=config.threshold,
            weighting=config.weighting,
            experts=config.experts,
            span=config.span,
            queries=self.elder_queries[name].cpu().numpy(),
            owners=self.elder_owners[name].cpu().numpy(),
            radius=config.radius,
        )

    def put(self, state: ElderState, adapter_name: str | None = None) -> None:
        """Copies a state into an adapter: its weights, and its settings.

        Raises:
            ValueError: The shapes do not match the adapter's; nothing was changed.
        """
        name = adapter_name or self.active_adapters[0]
        layers = self._layers(name)
        pairs = [(layer.elder_router[name], one) for layer, one in
                 zip(layers, state.routers, strict=True)]  # fmt: skip
        for kind, tensors in (("elder_A", state.lora_A), ("elder_B", state.lora_B)):
            mine = [getattr(layer, kind)[name] for layer in layers]
            pairs += list(zip(mine, tensors, strict=True))
        for mine, theirs in pairs:
            if mine.shape != theirs.shape:
                raise ValueError(f"shape {tuple(theirs.shape)} does not match {tuple(mine.shape)}")
        config = self.config_of(name)
        with torch.no_grad():
            for mine, theirs in pairs:
                mine.copy_(theirs)
        self.elder_codes[name] = torch.from_numpy(state.codes.copy())
        has_radius = state.radius is not None
        if has_radius and state.queries is not None and state.owners is not None:
            self.elder_queries[name] = torch.from_numpy(state.queries.copy())
            self.elder_owners[name] = torch.from_numpy(state.owners.copy())
        config.edits, config.threshold = list(state.edit_ids), state.threshold
        config.top_k, config.lora_alpha = state.top_k, state.scaling * config.r
        config.weighting, config.experts = state.weighting, state.experts
        config.span, config.radius = state.span, state.radius

    def remember(self, queries: torch.Tensor, edits: list[str]) -> None:
        """Stores the codes of edits, computed with the current routers.

        Args:
            queries: ``(n, d)``, queries of their prompts.
            edits: Ids of the edits.

        Raises:
            ValueError: The numbers of ids and queries differ.
        """
        if len(queries) != len(edits):
            raise ValueError(
                f"{len(queries)} queries and {len(edits)} edit ids; give one id per query"
            )
        name = self.active_adapters[0]
        with torch.no_grad():
            _, _, codes = self.state(name).encoded(queries)
        self.elder_codes[name] = torch.from_numpy(codes)
        self.elder_queries[name] = queries.detach().float().cpu()
        self.elder_owners[name] = torch.arange(len(edits))
        self.config_of(name).edits = list(edits)

    def guided_loss(self, queries: torch.Tensor, allocations: torch.Tensor) -> torch.Tensor:
        """Returns the guided loss of queries ``(n, d)`` towards allocations ``(n, L, k)``.

        Returns:
            ``(n,)``, nats, with gradients for the routers.
        """
        found, _, _ = self.state().encoded(queries)
        return routing.guided_loss(found, allocations)

    @contextlib.contextmanager
    def watching(self) -> Iterator[list[torch.Tensor]]:
        """Collects the first adapted block's inputs, ``(rows, length, d)``, during its body."""
        found: list[torch.Tensor] = []
        with training.capture(self._entry()) as passed:
            yield found
            if passed[0] is not None:
                found.append(passed[0][0])

    @property
    def is_disabled(self) -> bool:
        """Whether the adapters are disabled, as by ``disable_adapter()``."""
        layers = (module for module in self.model.modules() if isinstance(module, ElderLinear))
        return any(layer.disable_adapters for layer in layers)

    @property
    def version(self) -> str:
        """Name of the active adapter."""
        return str(self.active_adapters[0])

    def _live_parts(self) -> tuple[Part, ...]:
        names = [name for name in self.active_adapters if name in self.elder_codes]
        if len(names) > 1:
            raise ValueError(
                f"only one ELDER adapter can be active at a time, not {', '.join(names)}: each has "
                "its own routers and codes"
            )
        if not names or self.is_disabled:
            return ()
        return (ElderPart(self.state(names[0]), is_training=self.training),)

    def _layers(self, name: str) -> list[ElderLinear]:
        return [
            module
            for module in self.model.modules()
            if isinstance(module, ElderLinear) and name in module.elder_A
        ]

    def _entry(self) -> nn.Module:
        for block in self._layout.blocks:
            if any(isinstance(module, ElderLinear) for module in block.modules()):
                return block
        raise ValueError("no block contains an adapted layer")

    def _attach(self) -> None:
        modules = tuple(m for m in self.model.modules() if isinstance(m, ElderLinear))
        if not modules:
            return
        keys = LiveKeys(self.words) if self._is_pooled() else None
        patch = Patch("add", modules, keys=keys, entry=self._entry())
        view = Live(lambda: self.version, self._live_parts)
        self._attachment = Attachment(self.model, self._layout, view, {METHOD: patch})

    def _detach(self) -> None:
        if self._attachment is not None:
            self._attachment.remove()
            self._attachment = None

    def _is_pooled(self) -> bool:
        return any(self.config_of(name).query == "pooled" for name in self.peft_config)

    def words(self) -> PooledKeys:
        """Returns the prompt keys, for adapters that look prompts up by their words."""
        if self._keys is None:
            name = getattr(self.model.config, "_name_or_path", None)
            try:
                tokenizer = AutoTokenizer.from_pretrained(name)
            except (OSError, ValueError, TypeError) as error:
                raise ModelUnavailable(
                    f"the tokenizer of '{name}' cannot be loaded, and the adapter looks prompts up "
                    "by their words",
                    name=str(name),
                    reason="packages",
                    hint="give it: model.base_model.read_words_with(tokenizer)",
                ) from error
            self.read_words_with(tokenizer)
        assert self._keys is not None
        return self._keys

    def read_words_with(self, tokenizer: Any) -> None:
        """Sets the tokenizer of adapters that look prompts up by their words."""

        def known() -> Information:
            assert self._attachment is not None
            with self._attachment.paused():
                return of_model(self.model, tokenizer, fingerprint=self._fingerprint, is_kept=True)

        self._keys = PooledKeys(self.model, tokenizer, known)

    # Removing ---------------------------------------------------------------------------------

    def _check_merge_allowed(self) -> None:
        raise ValueError("the experts of ELDER depend on the input, so they cannot be merged")

    def _unload_and_optionally_merge(self, merge: bool = True, **kwargs: Any) -> Any:
        if merge:
            self._check_merge_allowed()
        self._detach()
        return super()._unload_and_optionally_merge(merge=False, **kwargs)

    def delete_adapter(self, adapter_name: str) -> None:
        """Deletes an adapter; see ``BaseTuner.delete_adapter``."""
        super().delete_adapter(adapter_name)
        for kept in (self.elder_codes, self.elder_queries, self.elder_owners):
            kept.pop(adapter_name)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls,
        model: nn.Module,
        config: PeftElderConfig,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = super()._remap_adapter_state_dict_for_load(
            model, config, adapter_name, state_dict
        )
        tuner: Any = model.base_model if hasattr(model, "base_model") else model
        damage.check(found, model, adapter_name, config)
        # Buffers of the saved number of wordings.
        for kept in (tuner.elder_queries, tuner.elder_owners):
            name = "elder_queries" if kept is tuner.elder_queries else "elder_owners"
            saved = next(found[one] for one in found if f"{name}.{adapter_name}" in one)
            kept[adapter_name] = torch.zeros_like(saved)
        return found
