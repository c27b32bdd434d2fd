"""The Python API inside a service of your own: a chat that its users may correct.

    python examples/embedded_fastapi.py          # needs `pip install 'editkit[server]'`
    curl -s localhost:8000/chat --json '{"turns": [{"role": "user", "content": "Who is Ada?"}]}'
    curl -s localhost:8000/corrections --json \
        '{"turns": [{"role": "user", "content": "Who is Ada?"}], "target": "A mathematician."}'

The model is EDITKIT_MODEL (by default `smollm2-135m`) and the history EDITKIT_STORE (`history.db`).
Who may correct is yours to decide: put your own authentication in front of both routes.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

import editkit
from editkit_store.errors import EditkitError
from editkit_store.records import Added, Generation, Message


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Opens the model and its history once, for as long as the service runs."""
    store = os.environ.get("EDITKIT_STORE", "history.db")
    with editkit.open(store, model=os.environ.get("EDITKIT_MODEL", "smollm2-135m")) as kit:
        app.state.kit = kit
        yield


app = FastAPI(lifespan=lifespan)


Kit = Annotated[editkit.Kit, Depends(lambda: app.state.kit)]


class Conversation(BaseModel):
    """What was said, ending with the user's turn."""

    turns: list[Message] = Field(min_length=1, max_length=100)


class Correction(Conversation):
    """What should have been answered."""

    target: str = Field(min_length=1, max_length=2000)


# Plain functions, not `async`: FastAPI runs them in threads. Answers may be generated side by side,
# also while a correction is learned; corrections take turns.
@app.post("/chat")
def chat(said: Conversation, kit: Kit) -> Generation:
    """The assistant's next turn, and which correction gave it."""
    return kit.chat(said.turns, max_new_tokens=100)


@app.post("/corrections")
def correct(wrong: Correction, kit: Kit) -> Added:
    """Corrects the answer; `verified` says whether the model has learned it."""
    return kit.add(chat=wrong.turns, target=wrong.target, reason="corrected in the chat")


@app.exception_handler(EditkitError)
async def refused(_: Request, error: Exception) -> JSONResponse:
    """Known errors are the request's: an empty target, a conversation that is too long, ..."""
    return JSONResponse({"detail": str(error)}, status_code=400)


if __name__ == "__main__":
    uvicorn.run(app, port=8000)
