"""GGUF files that lie end in one error, at once and without memory."""

from __future__ import annotations

import resource
import struct

import pytest
from ggufs import array, header, setting, tensor, text, write_tiny

from editkit.errors import ModelUnavailable
from editkit.models import cache, load_model, pull_model
from editkit.models.gguf_header import read_header

HUGE = 2**60
MOST = 2**64 - 1

LIES = {
    "it ends within its header": header(settings=3),
    "it says that it has 1152921504606846976 settings": header(settings=HUGE),
    "it says that it has 18446744073709551615 tensors": header(tensors=MOST, settings=0),
    "it is of version 1,": header(version=1),
    "it is of version 77,": header(version=77),
    "the name of a setting has 18446744073709551615 bytes": header(text(b"k", MOST), settings=1),
    "the setting 'k' has 1099511627776 bytes": header(setting("k", 8, text(b"v", 2**40))),
    "the setting 'k' is of an unknown type, 13": header(setting("k", 13, b"")),
    "the setting 'k' has 1152921504606846976 entries": header(setting("k", 9, array(0, HUGE))),
    "the setting 'b' has 3000000 entries": header(
        setting("a", 9, array(0, 3_000_000, bytes(3_000_000))),
        setting("b", 9, array(0, 3_000_000, bytes(3_000_000))),
    ),
    "the setting 'k' is an array of type 9": header(setting("k", 9, array(9, 1, array(0, 1)))),
    "an entry of the setting 'k' has 4097 bytes": header(
        setting("k", 9, array(8, 1, text(b"a" * 4097)))
    ),
    "an entry of the setting 'k' has 18446744073709551615 bytes": header(
        setting("k", 9, array(8, 1, text(b"", MOST)))
    ),
    "its setting 'block_count' is 4294967295": header(
        setting("llama.block_count", 4, struct.pack("<I", 2**32 - 1))
    ),
    "its setting 'block_count' is 3, and it has 2 blocks": header(
        setting("llama.block_count", 4, struct.pack("<I", 3)),
        tensor("blk.0.x", [8]), tensor("blk.7.x", [8], offset=32), tensors=2, data=64,
    ),
    "the tensor 'x' has 4294967295 dimensions": header(
        text(b"x") + struct.pack("<I", 2**32 - 1), tensors=1
    ),
    "the tensor 'x' has 0 dimensions": header(tensor("x", []), tensors=1),
    "the tensor 'x' has the shape [0, 8]": header(tensor("x", [0, 8]), tensors=1),
    "the tensor 'x' has the shape [31]": header(tensor("x", [31], kind=2), tensors=1),
    "the tensor 'x' is of an unknown type, 999": header(tensor("x", [8], kind=999), tensors=1),
    "the tensor 'x' is there twice": header(
        tensor("x", [8]), tensor("x", [8]), tensors=2, data=64
    ),
    "its tensors need 36 bytes, and 32 are there": header(tensor("x", [9]), tensors=1, data=32),
    "its tensors need 64 bytes, and 32 are there": header(
        tensor("x", [8]), tensor("y", [8]), tensors=2, data=32
    ),
    "its tensors need 1152921504606847008 bytes": header(
        tensor("x", [8], offset=HUGE), tensors=1, data=32
    ),
    # The product of these wraps around to 0 in 64 bits.
    "its tensors need 73786976294838206464 bytes": header(
        tensor("x", [2**32, 2**32]), tensors=1, data=32
    ),
    "its tensors need 32 bytes, and 0 are there": header(
        setting("general.alignment", 4, struct.pack("<I", 2**31)), tensor("x", [8]), tensors=1,
        data=32,
    ),
}  # fmt: skip


@pytest.mark.parametrize("words", LIES)
def test_a_header_that_lies_is_damaged_before_anything_is_read_or_stored(words, tmp_path, home):
    file = tmp_path / "hostile.gguf"
    file.write_bytes(LIES[words])
    with pytest.raises(ModelUnavailable) as caught:
        pull_model(str(file))
    assert caught.value.reason == "damaged"
    assert words in str(caught.value)
    assert "hostile.gguf" in str(caught.value)
    assert not home.exists()


def test_a_file_cut_anywhere_is_damaged(tmp_path):
    whole = write_tiny(tmp_path / "whole.gguf").read_bytes()
    assert read_header(tmp_path / "whole.gguf", name="whole").elements > 0
    cut = tmp_path / "cut.gguf"
    for length in (*range(0, len(whole) - 1, 509), len(whole) - 1):
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelUnavailable) as caught:
            read_header(cut, name="cut.gguf")
        assert caught.value.reason == "damaged"


def test_a_folder_of_that_name_and_a_file_closed_to_us_are_said_to_be_unreadable(tmp_path):
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        read_header(tmp_path, name="folder")
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        read_header(tmp_path / "absent.gguf", name="absent")


def test_the_other_byte_order_is_read_too(tmp_path):
    start = b"GGUF" + struct.pack(">IQQ", 3, 1, 0) + struct.pack(">Q", 1) + b"x"
    start += struct.pack(">IQIQ", 1, 8, 0, 0)
    (tmp_path / "big.gguf").write_bytes(start + bytes(-len(start) % 32 + 32))
    assert read_header(tmp_path / "big.gguf", name="big").elements == 8


def test_a_tiny_model_converts_and_runs(tmp_path):
    file = write_tiny(tmp_path / "tiny.gguf")
    loaded = load_model(file, device="cpu")
    assert loaded.tokenizer("abc").input_ids == [30]
    assert str(tmp_path) not in (loaded.path / "config.json").read_text()
    kept = (loaded.path / cache.DIGESTS).read_text()
    assert all(name in kept for name in ("config.json", "tokenizer.json", "model.safetensors"))


def test_weights_left_out_are_named_instead_of_drawn_at_random(tmp_path, home):
    file = write_tiny(tmp_path / "tiny.gguf", without={"blk.1.ffn_up"})
    with pytest.raises(
        ModelUnavailable, match=r"lacks 1 weights, e\.g\. .*layers\.1\.mlp\.up_proj"
    ):
        pull_model(str(file))
    assert [path.name for path in (home / "models").iterdir()] == [".locks"]


@pytest.mark.parametrize(
    "changes",
    [
        {"embedding_length": 2**30, "attention.head_count": 1},
        {"feed_forward_length": 2**31},
        {"vocab_size": 2**31},
        {"attention.head_count_kv": 2**20},
        {"attention.head_count": 0},
        {"rope.dimension_count": 2**31},
    ],
)
def test_a_model_larger_than_its_file_is_never_built(changes, tmp_path):
    file = write_tiny(tmp_path / "tiny.gguf", **changes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelUnavailable) as caught:
        pull_model(str(file))
    assert caught.value.reason == "damaged"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 500_000, "kilobytes"
