"""The official client against a real server, unchanged."""

from __future__ import annotations

import openai
import pytest

from editkit_cli.service.limits import Limits

CAT = "The red cat is"
TURN = [{"role": "user", "content": "Which bird?"}]


def test_the_models_are_the_running_one_and_its_tagged_versions(server):
    server.add(CAT, "blue")
    server.kit.tag("v1", "prod")
    client = server.openai()
    assert {one.id: one.version for one in client.models.list()} == {
        server.model: "v1",
        f"{server.model}@prod": "v1",
    }
    assert client.models.retrieve(f"{server.model}@-").version == "v0"
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("gpt-4")
    assert refused.value.code == "model_not_found"
    assert server.model in refused.value.body["hint"]


def test_a_correction_shows_in_the_next_completion(server):
    client = server.openai()
    before = client.completions.create(model=server.model, prompt=CAT)
    edit = server.add(CAT, "blue")["edit"]
    after = client.completions.create(model=server.model, prompt=CAT)
    assert (before.version, before.choices[0].fired) == ("v0", [])
    assert after.choices[0].text == "blue" != before.choices[0].text
    assert (after.version, after.choices[0].fired) == ("v1", [edit["id"]])
    assert after.model == f"{server.model}@v1"
    assert after.choices[0].finish_reason == "stop"
    assert after.usage.prompt_tokens == len(server.kit.encoder.prompt(CAT))
    assert after.usage.completion_tokens == 2  # the word and the end
    assert after.usage.total_tokens == after.usage.prompt_tokens + 2


def test_a_corrected_turn_of_a_chat_answers_as_corrected(server):
    server.add(None, "bird", chat=TURN)
    said = server.openai().chat.completions.create(model=server.model, messages=TURN)
    assert said.choices[0].message.content == "bird"
    assert said.choices[0].message.role == "assistant"
    assert said.object == "chat.completion"
    again = [*TURN, said.choices[0].message, {"role": "user", "content": "And a fish?"}]
    assert server.openai().chat.completions.create(model=server.model, messages=again).id


def test_the_name_of_a_model_pins_a_version(server):
    server.add(CAT, "blue")
    server.add(CAT, "gold")
    server.kit.tag("v1", "prod")
    client = server.openai()

    def said(version: str) -> tuple[str, str]:
        done = client.completions.create(model=f"{server.model}{version}", prompt=CAT)
        return done.version, done.choices[0].text

    untouched = str(server.kit.generate(CAT, version="v0", max_new_tokens=16))
    assert said("") == said("@v2") == said("@@") == ("v2", "gold")
    assert said("@prod") == said("@-") == said("@~1") == ("v1", "blue")
    assert said("@v0") == ("v0", untouched)
    with pytest.raises(openai.NotFoundError) as refused:
        said("@v9")
    assert refused.value.code == "unknown_version"


def test_a_stream_joins_up_to_the_whole_answer_and_ends_with_the_usage(server):
    server.add(CAT, "blue")
    client = server.openai()
    for prompt in (CAT, "tall tree", "one two"):
        how = {"model": server.model, "prompt": prompt, "max_tokens": 12}
        whole = client.completions.create(**how)
        chunks = list(
            client.completions.create(**how, stream=True, stream_options={"include_usage": True})
        )
        assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
        last, usage = chunks[-2:]
        assert last.choices[0].finish_reason == whole.choices[0].finish_reason
        assert last.choices[0].fired == whole.choices[0].fired
        assert (usage.choices, usage.usage) == ([], whole.usage)
        assert {chunk.version for chunk in chunks} == {"v1"}


def test_a_streamed_chat_begins_with_the_role(server):
    server.add(None, "bird", chat=TURN)
    client = server.openai()
    chunks = list(client.chat.completions.create(model=server.model, messages=TURN, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[1].choices[0].delta.model_fields_set == {"content"}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "bird"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is None


def test_several_prompts_and_copies_come_in_order(server):
    server.add(CAT, "blue")
    server.add("tall tree", "gold")
    said = server.openai().completions.create(
        model=server.model, prompt=[CAT, "tall tree"], n=2, max_tokens=4
    )
    assert [choice.index for choice in said.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in said.choices] == ["blue", "blue", "gold", "gold"]


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(calm):
    client = calm.openai()
    how = {"model": calm.model, "prompt": "tall tree", "max_tokens": 12}
    whole = client.completions.create(**how).choices[0].text
    assert len(whole) >= 3
    stop = whole[1:3]
    cut = client.completions.create(**how, stop=[stop, "zzz"]).choices[0]
    chunks = client.completions.create(**how, stop=stop, stream=True)
    assert cut.text == whole.partition(stop)[0].strip()
    assert cut.finish_reason == "stop"
    assert "".join(chunk.choices[0].text for chunk in chunks) == cut.text


def test_the_limit_of_tokens_ends_an_answer_with_length(calm):
    said = calm.openai().chat.completions.create(
        model=calm.model, messages=[{"role": "user", "content": "sea"}], max_completion_tokens=2
    )
    assert said.choices[0].finish_reason in ("length", "stop")
    assert said.usage.completion_tokens <= 2


def test_a_seed_makes_sampling_repeatable_and_copies_differ(calm):
    client = calm.openai()

    def said(seed: int, n: int = 1) -> list[str]:
        done = client.completions.create(
            model=calm.model, prompt="one two", temperature=1.5, top_p=0.99, seed=seed, n=n,
            max_tokens=12,
        )  # fmt: skip
        return [choice.text for choice in done.choices]

    assert said(1) == said(1) != said(2)
    many = said(1, n=4)
    assert many[0] == said(1)[0], "the same alone and among others"
    assert len(set(many)) > 1


@pytest.mark.parametrize(
    ("how", "param", "code"),
    [
        ({"logprobs": 1}, "logprobs", "unsupported_parameter"),
        ({"presence_penalty": 0.5}, "presence_penalty", "unsupported_parameter"),
        ({"logit_bias": {"5": 10}}, "logit_bias", "unsupported_parameter"),
        ({"echo": True}, "echo", "unsupported_parameter"),
        ({"best_of": 3}, "best_of", "unsupported_parameter"),
        ({"suffix": "x"}, "suffix", "unsupported_parameter"),
        ({"extra_body": {"top_k": 5}}, "top_k", "unknown_parameter"),
        ({"temperature": 3}, "temperature", "invalid_request"),
        ({"max_tokens": 0}, "max_tokens", "invalid_request"),
        ({"max_tokens": 10**6}, "max_tokens", "invalid_request"),
        ({"n": 17}, "n", "invalid_request"),
        ({"stop": ["a"] * 5}, "stop", "invalid_request"),
        ({"prompt": ""}, "prompt", "invalid_request"),
        ({"prompt": "\ud800"}, None, None),
        ({"prompt": "red " * 300}, "prompt", "prompt_too_long"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_request"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(calm, how, param, code):
    if how.get("prompt") == "\ud800":  # the client itself could not send it
        with calm.client() as client:
            said = client.post(
                "/v1/completions", content=b'{"model": "%s", "prompt": "\\ud800"}'
                % calm.model.encode(), headers={"Content-Type": "application/json"},
            )  # fmt: skip
        assert said.status_code == 400
        return
    with pytest.raises(openai.BadRequestError) as refused:
        calm.openai().completions.create(**{"model": calm.model, "prompt": CAT, **how})
    assert refused.value.body["param"].startswith(param)
    assert refused.value.code == code
    assert refused.value.body["message"]


@pytest.mark.parametrize(
    ("how", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "y"}]}, "messages"),
        ({"messages": [*TURN, {"role": "assistant", "content": "x"}]}, "chat"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url",
          "image_url": {"url": "data:,"}}]}]}, "messages"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
    ],
)  # fmt: skip
def test_what_a_chat_cannot_do_is_refused_by_name(calm, how, param):
    with pytest.raises(openai.BadRequestError) as refused:
        calm.openai().chat.completions.create(**{"model": calm.model, "messages": TURN, **how})
    assert refused.value.body["param"].startswith(param)


def test_values_without_effect_and_parts_of_text_are_taken(calm):
    said = calm.openai().chat.completions.create(
        model=calm.model,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "one"}]},
        ],
        max_tokens=2, presence_penalty=0, frequency_penalty=0, logit_bias={}, logprobs=False,
        user="ada", response_format={"type": "text"}, tools=[], n=1, stream=False,
        service_tier="auto", store=False, metadata={"a": "b"},
    )  # fmt: skip
    assert said.choices[0].finish_reason


def test_a_line_that_is_full_answers_429_with_retry_after(start):
    server = start(limits=Limits(waiting_rows=1, rows=16, grace=1))
    with pytest.raises(openai.RateLimitError) as refused:
        server.openai().completions.create(model=server.model, prompt=[CAT, "x"])
    assert refused.value.code == "busy"
    assert int(refused.value.response.headers["Retry-After"]) >= 1


def test_an_answer_that_takes_too_long_is_a_504_that_no_client_repeats(start):
    server = start(limits=Limits(seconds=1e-6, grace=1))
    for how in ({}, {"stream": True}):
        with pytest.raises(openai.InternalServerError) as refused:
            server.openai().completions.create(model=server.model, prompt=CAT, **how)
        assert refused.value.status_code == 504
        assert refused.value.code == "time_limit"
        assert refused.value.response.headers["x-should-retry"] == "false"
