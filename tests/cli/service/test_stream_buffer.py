"""One continuation in progress: what shows of it joins up to what it is."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from editkit_cli.service.stream_buffer import StreamBuffer

END = 0


class Bytes:
    """Each token is a byte."""

    def text(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")

    def certain(self, ids: Sequence[int], text: str) -> str:
        return text.rstrip("\ufffd")


decode = Bytes()


def run(
    text: str, *, stops: Sequence[str] = (), limit: int = 10**6
) -> tuple[StreamBuffer, list[str]]:
    shown: list[str] = []
    answer = StreamBuffer(decode, stop_ids=[END], limit=limit, stops=stops, on_text=shown.append)
    for token in [*text.encode(), END]:
        if answer.take(token):
            break
    return answer, shown


words = st.text(st.sampled_from("ab \né😀"), max_size=30)


@given(words, st.lists(st.text(st.sampled_from("ab "), min_size=1, max_size=3), max_size=3))
def test_what_shows_joins_up_to_the_text_and_nothing_is_taken_back(text, stops):
    answer, shown = run(text, stops=stops)
    found = [at for at in map(text.find, stops) if at >= 0]
    if not found:
        assert (answer.text, answer.ending) == (text.strip(), "stop")
    else:
        # The first stop string to be whole ends it; others may begin before it.
        assert answer.text in {text[:at].strip() for at in range(len(text))}
        assert not any(stop in answer.text for stop in stops)
    assert "".join(shown) == answer.text
    assert all(shown)


@given(words, st.integers(1, 20))
def test_a_watched_answer_is_that_of_one_nobody_watches(text, limit):
    watched, _ = run(text, limit=limit)
    alone = StreamBuffer(decode, stop_ids=[END], limit=limit)
    for token in [*text.encode(), END]:
        if alone.take(token):
            break
    assert (alone.text, alone.ending, alone.tokens) == (
        watched.text,
        watched.ending,
        watched.tokens,
    )
    assert alone.tokens <= limit


def test_half_a_character_does_not_show():
    shown: list[str] = []
    answer = StreamBuffer(decode, stop_ids=[END], limit=9, on_text=shown.append)
    for token in "é".encode():
        assert shown == []
        answer.take(token)
    assert shown == ["é"]


def test_the_beginning_of_a_stop_string_waits_until_it_is_clear_what_it_is():
    answer, shown = run("one, two", stops=[", three"])
    assert "".join(shown) == "one, two"
    assert "one" in shown[:3] or shown[:3] == ["o", "n", "e"]
    assert "," not in "".join(shown[:3])
    answer, shown = run("one, three", stops=[", three"])
    assert (answer.text, "".join(shown)) == ("one", "one")


def test_an_answer_that_has_ended_takes_nothing_more():
    answer, _ = run("one")
    assert answer.take(ord("x"))
    answer.finish("length")
    assert (answer.text, answer.ending, answer.tokens) == ("one", "stop", 4)
