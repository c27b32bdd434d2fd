"""A server holds answers to the targets of the edits that fire, unless it is asked not to."""

from __future__ import annotations

import httpx
import openai
import pytest

CAT, TREE = "The red cat is", "tall tree"
SPELLED = "Linda Yaccarino"
"""A target that has to be spelled: its edit fires, and the tiny model says something else."""
TURN = [{"role": "user", "content": CAT}]


def counted(server) -> dict[str, int]:
    names = ("free", "held", "no")
    return {name: int(server.metric(f'delivered_total{{delivered="{name}"}}')) for name in names}


def posted(server, path: str, **body) -> httpx.Response:
    with server.client() as client:
        return client.post(path, json=body)


def test_the_native_route_holds_and_leaves_free_and_the_metrics_count_both(server):
    assert counted(server) == {"free": 0, "held": 0, "no": 0}
    edit = server.add(CAT, SPELLED, on_failure="keep")["edit"]["id"]
    server.add("see Oslo", "yes")
    prompts = [CAT, TREE, "see Oslo"]
    held = posted(server, "/v1/generate", prompts=prompts).json()
    free = posted(server, "/v1/generate", prompts=prompts, delivery="free").json()
    assert [one["delivered"] for one in held] == ["held", None, "free"]
    assert (held[0]["text"], held[0]["fired"]) == (SPELLED, [edit])
    assert [one["delivered"] for one in free] == ["no", None, "free"]
    assert not free[0]["text"].startswith(SPELLED)
    assert free[1:] == held[1:]
    assert counted(server) == {"free": 2, "held": 1, "no": 1}


def test_completions_are_held_alone_streamed_sampled_and_in_copies(server):
    edit = server.add(CAT, SPELLED, on_failure="keep")["edit"]["id"]
    client = server.openai()
    how = {"model": server.model, "prompt": [CAT, TREE], "max_tokens": 30}
    for more in ({}, {"temperature": 1.5, "seed": 3}, {"n": 2, "temperature": 1.0}):
        copies = more.get("n", 1)
        choices = client.completions.create(**how, **more).choices
        assert [one.text for one in choices[:copies]] == [SPELLED] * copies
        assert [one.delivered for one in choices] == ["held"] * copies + [None] * copies
    pieces = list(client.completions.create(**how, stream=True))
    mine = [one.choices[0] for one in pieces if one.choices[0].index == 0]
    assert "".join(one.text for one in mine) == SPELLED
    assert (mine[-1].fired, mine[-1].delivered) == ([edit], "held")
    assert {one.delivered for one in mine[:-1]} == {None}
    free = client.completions.create(**how, extra_body={"delivery": "free"}).choices
    assert [one.delivered for one in free] == ["no", None]


def test_chats_are_held_alone_and_streamed(server):
    server.add(None, SPELLED, chat=TURN, on_failure="keep")
    client = server.openai()
    how = {"model": server.model, "messages": TURN, "max_tokens": 30}
    (choice,) = client.chat.completions.create(**how).choices
    assert (choice.message.content, choice.delivered) == (SPELLED, "held")
    pieces = [one.choices[0] for one in client.chat.completions.create(**how, stream=True)]
    assert "".join(one.delta.content or "" for one in pieces) == SPELLED
    assert pieces[-1].delivered == "held"
    (free,) = client.chat.completions.create(**how, extra_body={"delivery": "free"}).choices
    assert free.delivered == "no"


def test_stop_strings_and_limits_cut_a_held_answer(server):
    server.add(CAT, SPELLED, on_failure="keep")
    client = server.openai()
    cut = client.completions.create(model=server.model, prompt=CAT, max_tokens=30, stop="Yac")
    assert (cut.choices[0].text, cut.choices[0].delivered) == ("Linda", "held")
    short = client.completions.create(model=server.model, prompt=CAT, max_tokens=4)
    assert SPELLED.startswith(short.choices[0].text)
    assert (short.choices[0].finish_reason, short.choices[0].delivered) == ("length", "held")


@pytest.mark.parametrize("value", ["loose", "EXACT", 1, ["exact"]])
def test_an_unknown_delivery_is_refused_with_both_names(calm, value):
    asked = {
        "/v1/generate": {"prompts": [CAT]},
        "/v1/completions": {"model": calm.model, "prompt": CAT},
        "/v1/chat/completions": {"model": calm.model, "messages": TURN},
    }
    for path, body in asked.items():
        said = posted(calm, path, **body, delivery=value)
        assert said.status_code in (400, 422)
        error = said.json()["error"]
        assert error["param"] == "delivery"
        assert "'exact' or 'free'" in error["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/explain", {"prompt": CAT}),
        ("/v1/edits", {"prompt": CAT, "target": "gold"}),
        ("/v1/rollback", {"version": "v0"}),
    ],
)
def test_a_route_that_does_not_generate_takes_no_delivery(calm, path, body):
    said = posted(calm, path, **body, delivery="free")
    assert said.status_code in (400, 422)
    assert "delivery" in said.text


def test_null_is_the_default_of_openais_routes(calm):
    client = calm.openai()
    said = client.completions.create(
        model=calm.model, prompt=CAT, max_tokens=4, extra_body={"delivery": None}
    )
    assert (said.choices[0].text, said.choices[0].delivered) == ("blue", "free")
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=calm.model, prompt=CAT, extra_body={"delivery": "half"})
