from __future__ import annotations

import os
import re

import pytest
import torch
from torch import nn

from editkit.errors import UnsupportedModel
from editkit.models import identity
from editkit.models.identity import fingerprint, fingerprint_of_files


def reload(folder, **settings):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, **settings)


def test_a_fingerprint_is_tagged_with_its_algorithm(llama):
    assert re.fullmatch("sha256:[0-9a-f]{64}", fingerprint(llama))


def test_the_same_model_built_twice_has_one_fingerprint(make_llama):
    assert fingerprint(make_llama()) == fingerprint(make_llama())


def test_saving_and_loading_from_two_folders_keeps_the_fingerprint(make_llama, tmp_path):
    model = make_llama()
    found = set()
    for name in ("one", "two"):
        model.save_pretrained(tmp_path / name)
        found.add(fingerprint(reload(tmp_path / name)))
    assert found == {fingerprint(model)}


def test_sharded_files_make_the_same_fingerprint(make_llama, tmp_path):
    model = make_llama()
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert fingerprint(reload(tmp_path)) == fingerprint(model)


def test_one_bit_of_one_weight_changes_the_fingerprint(make_llama, make_gpt2):
    for model in (make_llama(), make_gpt2()):
        before = fingerprint(model)
        weight = list(model.parameters())[-1]
        weight.data.view(-1).view(torch.uint8)[-4] ^= 1
        assert fingerprint(model) != before


def test_swapping_two_equal_shaped_weights_changes_the_fingerprint(llama):
    before = fingerprint(llama)
    one, two = (layer.mlp.up_proj.weight for layer in llama.model.layers)
    one.data, two.data = two.data, one.data
    assert fingerprint(llama) != before


def test_hooks_modes_and_gradients_have_no_part_in_it(llama):
    before = fingerprint(llama)
    llama.register_forward_hook(lambda *_: None)
    llama.model.layers[0].register_forward_pre_hook(lambda *_: None)
    llama.register_state_dict_post_hook(lambda module, state, *_: state.clear())
    llama.train()
    llama.requires_grad_(False)
    assert fingerprint(llama) == before


def test_taking_a_fingerprint_changes_nothing(llama):
    pointers = [parameter.data_ptr() for parameter in llama.parameters()]
    values = [parameter.detach().clone() for parameter in llama.parameters()]
    llama.train()
    fingerprint(llama)
    assert llama.training
    assert pointers == [parameter.data_ptr() for parameter in llama.parameters()]
    assert all(map(torch.equal, values, llama.parameters()))


def test_names_paths_and_caching_settings_have_no_part_in_it(llama):
    before = fingerprint(llama)
    llama.config.name_or_path = "/somewhere/else"
    llama.config.use_cache = False
    llama.config.transformers_version = "0.0"
    llama.config.pad_token_id = 5
    llama.generation_config.max_length = 3
    assert fingerprint(llama) == before


@pytest.mark.parametrize(
    ("setting", "value"),
    [("rms_norm_eps", 0.5), ("hidden_act", "gelu"), ("rope_parameters", {"rope_theta": 5.0})],
)
def test_settings_that_change_the_results_change_the_fingerprint(setting, value, llama):
    before = fingerprint(llama)
    setattr(llama.config, setting, value)
    assert fingerprint(llama) != before


def test_tied_and_untied_models_differ(make_llama):
    assert fingerprint(make_llama()) != fingerprint(make_llama(tie_word_embeddings=False))


def test_a_tied_weight_is_hashed_once(llama, monkeypatch):
    rows = []
    original = identity._row
    monkeypatch.setattr(identity, "_row", lambda *row: rows.append(row[0]) or original(*row))
    fingerprint(llama)
    assert "model.embed_tokens.weight" in rows
    assert "lm_head.weight" not in rows
    assert len(rows) == len(set(rows))


def test_half_precision_is_another_model_and_bfloat16_can_be_hashed(make_llama):
    kinds = {fingerprint(make_llama().to(t)) for t in (torch.float32, torch.bfloat16, torch.half)}
    assert len(kinds) == 3


def test_a_transposed_view_is_hashed_by_its_values(make_llama):
    one, two = make_llama(), make_llama()
    weight = two.model.layers[0].self_attn.q_proj.weight
    weight.data = weight.data.t().contiguous().t()
    assert not weight.is_contiguous()
    assert fingerprint(one) == fingerprint(two)


class WithBuffers(nn.Module):
    def __init__(self, *, kept: float = 1.0, computed: float = 1.0) -> None:
        super().__init__()
        self.scalar = nn.Parameter(torch.tensor(2.0))
        self.empty = nn.Parameter(torch.zeros(0, 3))
        self.register_buffer("kept", torch.full((2,), kept))
        self.register_buffer("computed", torch.full((2,), computed), persistent=False)
        self.register_buffer("absent", None)


def test_persistent_buffers_count_and_computed_ones_do_not():
    plain = fingerprint(WithBuffers())
    assert fingerprint(WithBuffers(computed=9.0)) == plain
    assert fingerprint(WithBuffers(kept=9.0)) != plain


def test_weights_that_are_not_in_memory_are_refused_by_name():
    with pytest.raises(UnsupportedModel, match="'weight' cannot be read"):
        fingerprint(nn.Linear(2, 2, device="meta"))


def test_a_remembered_fingerprint_spares_the_hashing(model_folder, monkeypatch):
    model = reload(model_folder)
    first = fingerprint_of_files(model, model_folder)
    assert first == fingerprint(model)
    monkeypatch.setattr(identity, "fingerprint", lambda model: pytest.fail("hashed again"))
    assert fingerprint_of_files(model, model_folder) == first


def test_a_changed_file_or_dtype_is_hashed_again(model_folder, monkeypatch):
    hashed = []
    original = identity.fingerprint
    monkeypatch.setattr(identity, "fingerprint", lambda model: hashed.append(1) or original(model))
    fingerprint_of_files(reload(model_folder), model_folder)
    half = fingerprint_of_files(reload(model_folder, dtype=torch.bfloat16), model_folder)
    os.utime(model_folder / "model.safetensors", ns=(1, 1))
    full = fingerprint_of_files(reload(model_folder), model_folder)
    assert len(hashed) == 3
    assert half != full
