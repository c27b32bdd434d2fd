"""The correction loop on the real default model: corrections hold, and stay where they are."""

from __future__ import annotations

from typing import Any

import pytest
from cli.conftest import backend_of

from editkit import Kit
from editkit_cli.commands.shared.conversation import Conversation
from editkit_cli.terminal.output import Output

pytestmark = pytest.mark.real

UNRELATED = [
    "What is the capital of France?",
    "Who wrote Hamlet?",
    "Write a poem about rain.",
    "How do I boil an egg?",
]


class Talk:
    """A conversation in which nobody looks at the terminal."""

    def __init__(self, kit: Kit, capsys: pytest.CaptureFixture[str]) -> None:
        self._chat = Conversation(
            backend_of(kit), Output(), Output(is_aside=True), max_new_tokens=24
        )
        self._capsys = capsys

    def __call__(self, line: str) -> tuple[str, str]:
        """The answer to a line, and what is said beside it."""
        assert self._chat.take(line) == 0
        printed = self._capsys.readouterr()
        return printed.out.removesuffix("\n"), printed.err


def test_a_correction_in_mid_conversation_holds_in_a_fresh_one_and_leaves_the_rest_alone(
    real_kit: Kit, capsys: pytest.CaptureFixture[str]
) -> None:
    question, right = "Who wrote Dune?", "Frank Herbert wrote Dune."
    say = Talk(real_kit, capsys)
    plain = []
    for unrelated in UNRELATED:
        plain.append(say(unrelated)[0])
        say("/new")
    say("Hello!")
    say("Tell me something about the sea.")
    assert say(question)[0] != right
    answer, aside = say(f"/fix {right}")
    assert answer == right
    assert "corrected: verified, v" in aside
    assert "holds in a fresh conversation too" in aside

    say("/new")
    assert say(question)[0] == right
    say("/new")
    say("Can you help me with my homework?")
    assert say(question)[0] == right
    for unrelated, before in zip(UNRELATED, plain, strict=True):
        say("/new")
        answer, aside = say(unrelated)
        assert (answer, "fired" in aside) == (before, False)

    say("/new")
    say("/undo")
    assert say(question)[0] != right


@pytest.mark.parametrize(
    ("question", "right"),
    [
        ("Which planet is closest to the sun?", "Mercury is the closest planet to the sun."),
        ("What is your name?", "My name is Edith."),
    ],
)
def test_a_question_that_names_nothing_is_corrected_where_it_is_asked_first(
    real_kit: Kit, capsys: pytest.CaptureFixture[str], question: str, right: str
) -> None:
    say = Talk(real_kit, capsys)
    assert say(question)[0] != right
    assert say(f"/fix {right}")[0] == right
    say("/new")
    answer, aside = say(question)
    assert (answer, "fired" in aside) == (right, True)
    say("/new")
    assert "fired" not in say("What is the capital of France?")[1]


def test_a_correction_that_refers_back_holds_where_it_was_made_only(
    real_kit: Kit, capsys: pytest.CaptureFixture[str]
) -> None:
    def about(country: str, asked: str) -> list[dict[str, Any]]:
        return [
            {"role": "user", "content": f"Tell me about {country}."},
            {"role": "assistant", "content": f"{country} is a country."},
            {"role": "user", "content": asked},
        ]

    asked = "And what is its capital?"
    assert real_kit.add(chat=about("Australia", asked), target="Its capital is Canberra.").verified
    assert (
        real_kit.chat(about("Australia", asked), delivery="free").text == "Its capital is Canberra."
    )
    assert real_kit.chat(about("Japan", asked), max_new_tokens=12).fired == ()
    assert real_kit.chat(about("Australia", asked)[-1:], max_new_tokens=12).fired == ()
