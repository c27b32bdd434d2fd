"""A chatbot whose user corrects it: the loop that editkit is made for.

    python examples/correction_loop.py [history.db] [model]

Say something; the model answers. Then:

    /fix TEXT   the last answer should have been TEXT
    /why        which correction gave the last answer, and how near the others are
    /undo       take the last correction back
    /log        the history
    /quit       leave (or end the input)

Corrections go into the history file, so they hold the next time too.
"""

from __future__ import annotations

import sys

import editkit
from editkit import EditkitError, Kit

Turn = dict[str, str]


def answer(kit: Kit, conversation: list[Turn]) -> str:
    """Returns the model's next turn; the kit applies whatever was corrected so far."""
    return str(kit.chat(conversation, max_new_tokens=60))


def fix(kit: Kit, conversation: list[Turn], text: str) -> str:
    """Corrects the last answer, in the conversation as it was when it was given."""
    question = conversation[:-1]  # up to and including the user's turn
    result = kit.add(chat=question, target=text, reason="corrected in the chat")
    if not result.verified:
        return f"I could not learn that; I would still say: {result.answer}"
    conversation[-1] = {"role": "assistant", "content": text}
    return f"learned in {result.seconds:.1f} s as {result.version}"


def command(kit: Kit, conversation: list[Turn], line: str) -> str:
    """Carries out one slash command and returns what to print."""
    name, _, text = line.partition(" ")
    if name == "/fix":
        if not conversation:
            return "there is no answer to correct yet"
        return fix(kit, conversation, text)
    if name == "/why":
        return kit.explain(chat=conversation[:-1]).summary if conversation else "ask me something"
    if name == "/undo":
        return kit.undo().detail
    if name == "/log":
        return "\n".join(f"{e.version}  {e.operation}  {e.prompt} -> {e.target}" for e in kit.log())
    return "commands: /fix TEXT, /why, /undo, /log, /quit"


def main() -> None:
    """Runs the loop on standard input."""
    history = sys.argv[1] if len(sys.argv) > 1 else "history.db"
    model = sys.argv[2] if len(sys.argv) > 2 else None
    with editkit.open(history, model=model) as kit:
        conversation: list[Turn] = []
        while True:
            print("you: ", end="", flush=True)
            line = sys.stdin.readline()
            if not line or line.strip() == "/quit":
                break
            line = line.strip()
            if not line:
                continue
            try:
                if line.startswith("/"):
                    print(command(kit, conversation, line))
                    continue
                # Each question starts afresh: a small model is easily led astray by history.
                conversation = [{"role": "user", "content": line}]
                said = answer(kit, conversation)
                conversation.append({"role": "assistant", "content": said})
                print("model:", said)
            except EditkitError as error:
                print(f"sorry: {error}")


if __name__ == "__main__":
    main()
