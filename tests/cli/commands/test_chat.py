"""chat: every line of a conversation, piped and on a terminal, on a tiny random model."""

from __future__ import annotations

import json
import signal

import pytest
from cli.conftest import backend_of

from editkit_cli.commands.shared.conversation import Conversation
from editkit_cli.terminal.output import Output
from editkit_store import open_store


@pytest.fixture
def model(tiny_model, monkeypatch, folder) -> str:
    """The tiny model, as the environment's choice."""
    monkeypatch.setenv("EDITKIT_MODEL", tiny_model)
    return tiny_model


@pytest.fixture
def talk(sh, model):
    """Pipes lines into a conversation."""

    def run(*lines: str, options: tuple[str, ...] = ()):
        limit = () if "--max-new-tokens" in options else ("--max-new-tokens", "4")
        return sh("chat", *limit, *options, stdin="".join(f"{line}\n" for line in lines))

    return run


SKY = "Which sky is over Oslo?"


def test_a_piped_conversation_prints_one_answer_a_turn_and_nothing_else_on_stdout(talk):
    ran = talk(SKY, "/why", "/log", "/diff v0 v0", "/help", "/new", "Where is Rome?", "/quit", "no")
    assert ran.code == 0
    plain = talk(SKY, "", "/new", "Where is Rome?")
    assert ran.stdout == plain.stdout != ""
    assert "No edit is active at v0" in ran.stderr
    assert "the model without edits" in ran.stderr
    assert "/fix TEXT" in ran.stderr
    assert "a fresh conversation" in ran.stderr


def test_fix_corrects_the_last_answer_tells_of_it_and_answers_again(talk, sh):
    ran = talk(SKY, "/fix blue")
    assert ran.code == 0
    assert ran.stdout.endswith("\nblue\n")
    assert not ran.stdout.startswith("blue")
    edit = sh("log", "--json").json[0]
    assert f"corrected: verified, v1, edit {edit['edit_id'][:12]}, " in ran.stderr
    assert "reach: " in ran.stderr
    assert f"(v1, edit {edit['edit_id'][:12]} fired)" in ran.stderr
    assert edit["author"] == "ada"


def test_fix_keeps_the_conversation_as_it_was_and_its_id(talk, sh, folder):
    talk("Say red.", "/fix red", SKY, "/fix blue", options=("--system", "Be kind."))
    with open_store(folder / "history.db") as store:
        red, blue = reversed(store.show("v2").edits[::-1])
    said = [(turn.role, turn.content) for turn in blue.chat]
    assert said == [
        ("system", "Be kind."), ("user", "Say red."), ("assistant", "red"), ("user", SKY),
    ]  # fmt: skip
    assert red.conversation == blue.conversation
    assert len(red.conversation) == 12


def test_a_correction_holds_in_a_fresh_conversation_a_fresh_process_and_leaves_others_alone(talk):
    before = talk("Where is the milk of Vienna?")
    ran = talk("Good milk", SKY, "/fix blue", "/new", SKY)
    assert ran.stdout.endswith("\nblue\nblue\n")
    assert "holds in a fresh conversation too" in ran.stderr
    assert talk(SKY).stdout == "blue\n"
    after = talk("Where is the milk of Vienna?", "/why")
    assert after.stdout == before.stdout
    assert "No edit fires" in after.stderr


def test_a_correction_that_refers_back_says_that_it_does_not_hold_in_a_fresh_conversation(talk):
    ran = talk("Do you like Oslo?", "and why?", "/fix sun")
    assert ran.code == 0
    assert "asked first in a fresh conversation" in ran.stderr
    assert "hint: where it should hold there too: /new, ask it, and /fix it there" in ran.stderr


def said_elsewhere(kit, monkeypatch, *texts):
    """Lets the next questions to the kit be answered with these texts."""
    plain, left = kit.chat, list(texts)

    def said(asked, **options):
        made = plain(asked, **options)
        is_check = "stopping_criteria" not in options
        return made.model_copy(update={"text": left.pop(0)}) if is_check and left else made

    monkeypatch.setattr(kit, "chat", said)


def test_what_would_not_hold_in_a_fresh_conversation_is_learned_there_instead(
    kit, capsys, monkeypatch
):
    chat = Conversation(backend_of(kit), Output(), Output(is_aside=True), max_new_tokens=4)
    chat.take("Good milk")
    chat.take(SKY)
    said_elsewhere(kit, monkeypatch, "blue or so")
    assert chat.take("/fix blue") == 0
    printed = capsys.readouterr()
    assert printed.out.endswith("\nblue\n")
    assert "corrected: verified, v3, edit" in printed.err
    assert "holds in a fresh conversation too" in printed.err
    (edit,) = kit.show("@").edits
    assert [turn.content for turn in edit.chat] == [SKY]
    for line, active in (("/undo", 0), ("/redo", 1), ("/undo", 0)):
        assert chat.take(line) == 0
        assert kit.status().edits == active, "a correction is one thing, however it came about"
    chat.take("/redo")
    assert kit.show("@").edits == (edit,)


def test_what_cannot_hold_in_both_conversations_holds_where_it_was_corrected(
    kit, capsys, monkeypatch
):
    chat = Conversation(backend_of(kit), Output(), Output(is_aside=True), max_new_tokens=4)
    chat.take("Good milk")
    chat.take(SKY)
    said_elsewhere(kit, monkeypatch, "blue or so", "not here")
    assert chat.take("/fix blue") == 0
    printed = capsys.readouterr()
    assert printed.out.endswith("\nblue\n")
    assert "corrected: verified, v4, edit" in printed.err
    assert (
        "in a fresh conversation, the model is corrected, but by itself says 'blue or so'"
        in printed.err
    )
    (edit,) = kit.show("@").edits
    assert [turn.content for turn in edit.chat][::2] == ["Good milk", SKY]


def test_the_correction_stays_while_another_is_learned_in_its_place(kit, monkeypatch):
    """Whatever ends the process there: nothing has been taken back yet."""
    chat = Conversation(backend_of(kit), Output(quiet=True), Output(quiet=True), max_new_tokens=4)
    chat.take("Good milk")
    chat.take(SKY)
    said_elsewhere(kit, monkeypatch, "blue or so")
    active = []
    add = kit.add_many

    def seen(*args, **options):
        active.append(kit.status().edits)
        return add(*args, **options)

    monkeypatch.setattr(kit, "add_many", seen)
    assert chat.take("/fix blue") == 0
    assert active == [0, 1]


def test_an_interrupted_look_at_a_fresh_conversation_does_not_lose_the_correction(kit, monkeypatch):
    chat = Conversation(backend_of(kit), Output(quiet=True), Output(quiet=True), max_new_tokens=4)
    chat.take("Good milk")
    chat.take(SKY)
    said_elsewhere(kit, monkeypatch, "blue or so")
    learned = []

    def add_once(*args, **options):
        if learned:
            raise KeyboardInterrupt
        learned.append(add(*args, **options))
        return learned[0]

    add = kit.add_many
    monkeypatch.setattr(kit, "add_many", add_once)
    with pytest.raises(KeyboardInterrupt):
        chat.take("/fix blue")
    assert [edit.id for edit in kit.show("@").edits] == [learned[0][0].edit.id]


@pytest.mark.parametrize(("make", "right"), [("tiny_bert", "positive"), ("tiny_t5", "blue")])
def test_other_families_are_corrected_prompt_by_prompt(tmp_path, capsys, make, right):
    import tiny

    import editkit

    tokenizer = tiny.tiny_tokenizer()
    tokenizer.chat_template = None
    with editkit.open(tmp_path / "h.db", model=(getattr(tiny, make)(), tokenizer)) as kit:
        chat = Conversation(
            backend_of(kit), Output(), Output(is_aside=True), max_new_tokens=4, streams=True
        )
        assert [chat.take(line) for line in (SKY, f"/fix {right}", "Good milk", SKY)] == [0] * 4
    assert capsys.readouterr().out.splitlines()[1::2] == [right, right]


def test_undo_redo_and_again_move_the_answers_along(talk):
    ran = talk(SKY, "/fix blue", "/undo", "/again", "/redo", "/again")
    assert ran.code == 0
    was, fixed, undone, redone = ran.stdout.splitlines()
    assert (fixed, redone) == ("blue", "blue")
    assert was == undone != "blue"
    assert "undo: took back v1 (add); now at v2, 0 active edits" in ran.stderr
    assert "redo: did v1 (add) again; now at v3, 1 active edit\n" in ran.stderr


def test_why_says_which_edit_gave_the_last_answer_even_after_it_was_taken_back(talk):
    ran = talk(SKY, "/fix blue", "/undo", "/why")
    assert "-> 'blue') fires: the prompt is" in ran.stderr


def test_version_talks_to_an_older_view_and_corrections_wait_for_the_current_one(talk, sh):
    before = talk(SKY).stdout
    talk(SKY, "/fix blue")
    ran = talk(SKY, "/fix red", "/version", "/undo", "/version @", options=("--version", "v0"))
    assert ran.code == 1
    assert ran.stdout == before
    assert "(v0, " in ran.stderr
    assert "error: these answers come from v0, an older version" in ran.stderr
    assert "hint: `/version @` goes back there" in ran.stderr
    assert "at v0; the current version is v1" in ran.stderr
    assert "answers still come from v0" in ran.stderr
    assert "at v2, the current version" in ran.stderr
    again = talk(SKY, "/version v1", "/again", "/version @-", "/again")
    assert again.stdout == f"{before}blue\nblue\n"


def test_the_current_version_by_its_number_is_still_the_one_to_correct(talk):
    talk(SKY, "/fix blue")
    assert talk("/version v1", SKY, "/fix red").stdout == "blue\nred\n"


def test_a_correction_that_contradicts_an_edit_says_so_and_wins(talk):
    ran = talk(SKY, "/fix blue", "/fix red", "/new", SKY, "/fix green", "/new", SKY)
    assert ran.code == 0
    assert ran.stdout.splitlines()[1:] == ["blue", "red", "red", "green", "green"]
    assert "has the same prompt and the target 'blue'" in ran.stderr


def test_a_correction_that_does_not_verify_exits_with_3_and_changes_nothing(talk, sh):
    long = "".join(chr(ord("a") + at * 7 % 26) for at in range(60))
    ran = talk(SKY, f"/fix {long}", "/again")
    assert ran.code == 3
    assert "warning: the correction did not verify: the model would answer" in ran.stderr
    assert "hint: say it in other words, or shorter" in ran.stderr
    first, again = ran.stdout.splitlines()
    assert first == again
    assert sh("status", "--json").json["edits"] == 0


def test_a_line_that_goes_wrong_is_told_and_the_next_one_is_answered(kit, capsys):
    chat = Conversation(backend_of(kit), Output(), Output(is_aside=True), max_new_tokens=4)
    for line, code, said in [
        ("/fix blue", 1, "error: there is no answer yet\nhint: ask the model something first"),
        ("/why", 1, "error: there is no answer yet"),
        ("/again", 1, "error: there is no answer yet"),
        ("/undo", 1, "error: there is nothing to undo"),
        ("/redo", 1, "error: "),
        ("/version v9", 1, "error: there is no version 'v9'"),
        ("/diff v0 v9", 1, "error: there is no version 'v9'"),
        ("/fxi blue", 2, "error: there is no command '/fxi'; did you mean /fix?"),
        ("/etc/hosts", 2, "to say something that begins with /, put a space before it"),
        ("/fix", 2, "error: /fix needs the answer that should have been given"),
        ("/diff a b c", 2, "error: /diff takes two versions at most"),
        ("/log x", 2, "error: /log takes how many operations to list, not 'x'"),
        ("/log 0", 2, "error: /log takes how many operations to list, not '0'"),
    ]:
        assert chat.take(line) == code, line
        printed = capsys.readouterr()
        assert said in printed.err
        assert printed.out == ""
    assert chat.take(SKY) == 0
    assert capsys.readouterr().out.strip()


class Interrupting(Output):
    """Somebody presses Ctrl-C as soon as the answer begins."""

    def piece(self, text: str) -> None:
        super().piece(text)
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_stops_the_answer_and_keeps_the_conversation(kit, capsys):
    chat = Conversation(
        backend_of(kit), Interrupting(), Output(is_aside=True), max_new_tokens=200, streams=True
    )
    before = signal.getsignal(signal.SIGINT)
    assert chat.take("red red red") == 0
    assert signal.getsignal(signal.SIGINT) is before
    printed = capsys.readouterr()
    assert "stopped" in printed.err
    assert "cut off" not in printed.err
    assert 0 < len(printed.out) < 200
    assert chat.take("/why") == 0
    assert chat.take("/fix blue") == 0
    assert "corrected: verified, v1" in capsys.readouterr().err


def test_a_streamed_answer_is_the_answer(kit, capsys):
    whole = Conversation(backend_of(kit), Output(), Output(is_aside=True), max_new_tokens=60)
    bits = Conversation(
        backend_of(kit), Output(), Output(is_aside=True), max_new_tokens=60, streams=True
    )
    for line in ("red red red", SKY, "Where is Rome?"):
        whole.take(line)
        said = capsys.readouterr().out
        bits.take(line)
        assert capsys.readouterr().out == said


def test_the_exit_code_is_that_of_the_first_line_that_went_wrong(talk):
    assert talk("/fxi", "/undo").code == 2
    assert talk("/undo", "/fxi").code == 1


def test_a_slash_behind_a_space_is_something_to_say(talk):
    assert talk(" /etc/hosts").code == 0


def test_a_conversation_beyond_the_context_says_how_to_go_on(talk):
    ran = talk("red " * 100, "red " * 200, "/new", SKY)
    assert ran.code == 1
    assert "do not fit into the model's context window of 256" in ran.stderr
    assert "hint: say it shorter, or begin a fresh one with /new" in ran.stderr
    assert "Traceback" not in ran.stderr
    fits = talk("red " * 100, SKY)
    assert fits.code == 0  # what did not fit is no part of the conversation


def test_answers_as_json_are_one_record_a_line(talk):
    for flag in ("--nl", "--json"):
        ran = talk(SKY, "/why", options=(flag,))
        assert [json.loads(line)["prompt"] for line in ran.stdout.splitlines()] == [SKY]


def test_quiet_leaves_answers_and_errors(talk):
    ran = talk(SKY, "/fix blue", "/undo", "/undo", options=("--quiet",))
    assert ran.code == 1
    assert ran.stdout.endswith("blue\n")
    assert ran.stderr.splitlines()[0] == "error: there is nothing to undo"


def test_standard_input_that_is_no_text_is_wrong_usage(sh, model):
    ran = sh("chat", stdin=b"\xff\xfe\n")
    assert ran.code == 2
    assert "standard input is not valid UTF-8" in ran.stderr


def test_an_unknown_version_is_refused_before_a_model_is_loaded(sh, history):
    ran = sh("chat", "--version", "v9", "--model", "no-such-model", stdin="")
    assert (ran.code, ran.stdout) == (1, "")
    assert "there is no version 'v9'" in ran.stderr


@pytest.fixture
def base_model(tmp_path_factory) -> str:
    """A folder with a model whose tokenizer has no chat template."""
    from tiny import tiny_llama, tiny_tokenizer

    where = tmp_path_factory.mktemp("base")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(where)
    tiny_llama().save_pretrained(where)
    return str(where)


def test_a_model_without_a_chat_template_continues_plain_prompts(sh, folder, base_model):
    ran = sh("chat", "--model", base_model, stdin="The sky is\n/fix blue\n/why\nThe sky is\n")
    assert ran.code == 0
    assert "has no chat template: the model continues each line as a prompt" in ran.stderr
    assert "-> 'blue') fires" in ran.stderr
    assert ran.stdout.endswith("blue\nblue\n")
    asked = sh("generate", "The sky is", "--model", base_model, "--json").json
    assert asked["text"] == "blue"
    with open_store(folder / "history.db") as store:
        assert store.show("v1").edits[0].chat is None


def test_a_system_message_needs_a_chat_template(sh, folder, base_model):
    ran = sh("chat", "--model", base_model, "--system", "Be kind.", stdin="x\n")
    assert (ran.code, ran.stdout) == (1, "")
    assert "there is no place for a system message" in ran.stderr
