"""A chatbot on OpenAI's client whose users correct it, against a running `editkit serve`.

    editkit serve                                     # in one terminal
    python examples/chatbot_correction_loop.py        # in another; needs `pip install openai`

Say something; the model answers. Then:

    /fix TEXT    the last answer should have been TEXT
    /why         which correction gave the last answer, and how near the others are
    /undo        take the last change back
    /version V   ask the model as of version V from now on (v0, prod, ...); alone: the current one
    /log         the history
    /quit        leave (or end the input)

The server is at EDITKIT_URL with the token EDITKIT_TOKEN (`editkit token create me --role edit`);
left out, it is the one that holds the store `history.db` here, whose owner you are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai

Turn = dict[str, str]


def connect() -> openai.OpenAI:
    """Returns the official client, pointed at the server."""
    url, token = os.environ.get("EDITKIT_URL"), os.environ.get("EDITKIT_TOKEN")
    if not url or not token:
        owner = Path(os.environ.get("EDITKIT_STORE", "history.db") + ".server")
        if not owner.exists():
            sys.exit(f"no server holds a store here ('{owner}' is missing): run `editkit serve`")
        said = json.loads(owner.read_text())
        url = f"http://{said['host']}:{said['port']}"
        # The secret in that file is never sent: it proves who you are, and a session comes of it.
        verb = [sys.executable, "-m", "editkit_cli", "token", "session", "--store", said["store"]]
        token = subprocess.run(verb, check=True, capture_output=True, text=True).stdout.strip()
    return openai.OpenAI(base_url=f"{url}/v1", api_key=token)


class Chat:
    """One user's talk with the model."""

    def __init__(self, client: openai.OpenAI) -> None:
        self.client = client
        self.name = client.models.list().data[0].id
        self.model = self.name
        self.turns: list[Any] = []

    def ask(self, text: str) -> None:
        """Streams the answer to one question."""
        # Each question starts afresh: a small model is easily led astray by history.
        self.turns = [{"role": "user", "content": text}]
        chunks = self.client.chat.completions.create(
            model=self.model, messages=self.turns, max_tokens=60, stream=True
        )
        print("model: ", end="")
        answer = ""
        for chunk in chunks:
            new = chunk.choices[0].delta.content or ""
            answer += new
            print(new, end="", flush=True)
        print()
        self.turns.append({"role": "assistant", "content": answer})

    def command(self, line: str) -> str:
        """Carries out one slash command and returns what to print."""
        name, _, text = line.partition(" ")
        if name in ("/fix", "/why") and not self.turns:
            return "ask me something first"
        if name == "/fix":
            # The conversation as it was when the answer was given. The client sends a request
            # again by itself where the connection breaks; the key keeps that one edit.
            edit = {"chat": self.turns[:-1], "target": text, "reason": "corrected in the chat"}
            done = self._call("POST", "/edits", edit)
            if not done["verified"]:
                return f"I could not learn that; I would still say: {done['answer']}"
            return f"learned in {done['seconds']:.1f} s as {done['version']}"
        if name == "/why":
            return str(self._call("POST", "/explain", {"chat": self.turns[:-1]})["summary"])
        if name == "/undo":
            return str(self._call("POST", "/undo", {})["detail"])
        if name == "/version":
            self.model = f"{self.name}@{text}" if text else self.name
            return f"asking {self.client.models.retrieve(self.model).id} from now on"
        if name == "/log":
            entries = self._call("GET", "/versions")
            return "\n".join(f"{e['version']}  {e['operation']}  {e['prompt']} -> {e['target']}"
                             for e in entries)  # fmt: skip
        return "commands: /fix TEXT, /why, /undo, /version V, /log, /quit"

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        """Asks for something that is editkit's own, through the same client."""
        if method == "GET":
            return self.client.get(path, cast_to=object)
        key = {"Idempotency-Key": os.urandom(16).hex()} if path == "/edits" else {}
        return self.client.post(path, cast_to=object, body=body, options={"headers": key})


def main() -> None:
    """Runs the loop on standard input."""
    chat = Chat(connect())
    while True:
        print("you: ", end="", flush=True)
        line = sys.stdin.readline()
        if not line or line.strip() == "/quit":
            break
        try:
            if line.startswith("/"):
                print(chat.command(line.strip()))
            elif line.strip():
                chat.ask(line.strip())
        except openai.APIStatusError as error:
            print(f"sorry: {error.body['message'] if isinstance(error.body, dict) else error}")


if __name__ == "__main__":
    main()
