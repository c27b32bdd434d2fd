from __future__ import annotations

import re
from pathlib import Path

import pytest

from editkit.models import cache
from editkit.models.aliases import (
    ALIASES,
    DEFAULT_MODEL,
    close_matches,
    find_alias,
    list_models,
)

SCRIPT = """
import sys
import editkit.models, editkit.models.aliases, editkit.models.cache
editkit.models.list_models()
editkit.models.resolve("gpt2")
heavy = {"torch", "transformers", "numpy", "huggingface_hub", "safetensors", "filelock"}
print(sorted(heavy & set(sys.modules)))
"""


def test_listing_the_models_imports_no_framework(run_python):
    result = run_python(SCRIPT)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_the_default_model_is_in_the_table_and_free_to_use():
    alias = ALIASES[DEFAULT_MODEL]
    assert alias.license == "Apache-2.0"
    assert not alias.gated
    assert alias.wheels


def test_aliases_are_lower_case_and_differ_in_their_hub_ids():
    assert all(name == name.lower() == alias.name for name, alias in ALIASES.items())
    assert len({alias.hub_id.lower() for alias in ALIASES.values()}) == len(ALIASES)


def test_every_alias_with_wheels_has_a_checksum_and_exact_versions():
    for alias in ALIASES.values():
        if alias.wheels:
            assert re.fullmatch("[0-9a-f]{64}", alias.sha256 or "")
            assert any(wheel.member for wheel in alias.wheels)
            assert all(wheel.size > 0 and wheel.version for wheel in alias.wheels)
            assert all(re.fullmatch("[0-9a-f]{64}", wheel.sha256) for wheel in alias.wheels)


def test_every_alias_is_one_commit_of_its_repository():
    assert all(re.fullmatch("[0-9a-f]{40}", alias.revision) for alias in ALIASES.values())


@pytest.mark.parametrize("name", ["gpt2", "GPT2", " gpt2 ", "openai-community/gpt2"])
def test_an_alias_is_found_by_its_name_and_its_hub_id_in_any_case(name):
    alias = find_alias(name)
    assert alias is not None
    assert alias.name == "gpt2"


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ("smollm2", "smollm2-135m"),
        ("SmolLM2-135M-Instruct", "smollm2-135m"),
        ("llama-2-7b", "llama2-7b"),
        ("gpt2xl", "gpt2-xl"),
        ("t5smal", "t5-small"),
    ],
)
def test_close_matches_put_the_likeliest_alias_first(asked, first):
    assert close_matches(asked)[0] == first


def test_nothing_is_close_to_a_name_unlike_all_others():
    assert close_matches("qqqqzzzz") == ()


def test_list_models_says_where_a_cached_model_lies_and_names_other_hub_models():
    for name in ("gpt2", "owner/other"):
        with cache.staging(cache.slug(name)) as folder:
            (folder / "config.json").write_text("{}")
            cache.publish(folder, cache.slug(name), cache.Receipt(name=name, source="hub"))
    found = {info.name: info for info in list_models()}
    assert found["gpt2"].cached
    assert found["gpt2"].path is not None
    assert Path(found["gpt2"].path).name == "gpt2"
    assert not found["t5-small"].cached
    assert found["owner/other"].hub_id == "owner/other"
    assert found["llama2-7b"].gated
