"""How far edits of a classifier reach, before anything is learned: texts written for this alone.

    python benchmarks/texts.py

24 texts of the kinds that people classify (complaints, reviews, news, messages), each with the same
in other words and with another text about the same thing. Their keys (``editkit.scope.texts``) come
from the word embeddings of the BERT that all-MiniLM-L6-v2 is, out of its package; nothing was tuned
on these texts. For each scope:

  again    the same in other words, and the nearest of all texts is its own
  beside   other texts about the same thing: what an edit should leave alone if it can
  opposite texts that say the contrary in nearly the same words; their keys hardly tell
  other    pairs of texts about different things
  long     pairs of long texts that have nothing in common, each 12 web pages (about 300 words);
           in brackets, were what any text says not taken out of the keys

The pages are those of `wikibio.jsonl`, beside the project or in EDITKIT_DATA.
"""

from __future__ import annotations

import platform
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import quality
import torch
import transformers
from labels import encoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from editkit.methods.grace.config import GraceConfig
from editkit.scope.information import of_model
from editkit.scope.texts import TextKeys

TEXTS = """
My card was charged twice for the same order, please refund one of them.
I paid once but you took the money two times from my card. I want one charge refunded.
My card was declined when I tried to pay for an order.
The app crashes every time I open the camera.
Whenever the camera is opened, the app crashes.
The app is slow when I scroll through my photos.
How do I change the email address on my account?
I'd like to use a different email address for my account. How?
How do I delete my account?
The parcel says delivered but I never got it.
My parcel is marked as delivered, yet nothing arrived here.
The parcel arrived but the box was damaged.
I forgot my password and the reset link does not work.
The link to reset my forgotten password is broken.
I forgot which user name I signed up with.
Can I bring my dog on the train to Lyon?
Are dogs allowed on trains to Lyon?
Can I bring my bike on the train to Lyon?
The heating in room 214 has not worked since Monday.
Since Monday room 214 is cold because the heating is broken.
The shower in room 214 has no hot water.
Your newsletter keeps coming although I unsubscribed last month.
I unsubscribed from the newsletter a month ago and still receive it.
I would like to subscribe to your newsletter.
Please cancel my subscription before the trial ends.
I want the subscription cancelled before my trial is over.
Please upgrade my subscription to the yearly plan.
The tyre pressure light stays on after inflating all four tyres.
I inflated every tyre and still the tyre pressure light is on.
The oil light came on while I was driving.
This soup was far too salty and the waiter was rude.
A rude waiter, and a soup with much too much salt.
The soup was lovely and the waiter very kind.
I have had a dry cough for three weeks and no fever.
No fever, but a dry cough that has lasted three weeks.
My son has had a fever since yesterday and a rash.
The court ordered the factory to stop dumping waste into the river.
By order of the court the factory may no longer dump its waste in the river.
The factory was ordered to pay its workers overtime.
Shares of the airline fell nine percent after the strike.
After the strike the airline's shares lost nine percent.
The airline ordered forty new planes.
She scored twice in the final and was named player of the match.
Named player of the match, she had scored two goals in the final.
She missed the final because of an injury.
The new graphics card is loud but runs every game smoothly.
Every game runs smoothly on the new graphics card, which is loud though.
The new monitor has a stuck pixel in one corner.
Delivery to Hungary takes eleven days and costs too much.
It takes eleven days and too much money to have it delivered to Hungary.
Do you ship to Norway at all?
My grandmother's recipe for plum cake uses no eggs.
The plum cake after my grandmother's recipe has no eggs in it.
My grandmother's recipe for bread uses rye flour.
The museum is closed on Tuesdays in winter.
In winter the museum does not open on Tuesdays.
The museum shop sells posters of the exhibition.
He denies that he leaked the report to the press.
According to him, it was not he who leaked the report to the press.
He denies that he met the ambassador.
Win a free phone now, just click this link and enter your card number!
Click the link, enter your card number and win a phone for free!
Your phone bill for October is ready to view in the app.
Two hikers were rescued by helicopter from the north face last night.
A helicopter rescued two hikers last night from the north face.
Two climbers reached the summit by a new route.
The plot is thin, the jokes are old and it lasts three hours.
Three hours long, with old jokes and a thin plot.
The plot is clever and the actors are a joy.
This phone's battery lasts two days but the screen scratches easily.
The screen gets scratches easily, though the battery of this phone lasts for two days.
This phone's camera is poor at night.
""".strip().splitlines()
OPPOSITES = """
I would recommend this restaurant to anyone.
I would not recommend this restaurant to anyone.
It is safe to take ibuprofen before a race.
It is not safe to take ibuprofen before a race.
Please cancel my order from last night.
Please do not cancel my order from last night.
I love the camera of this phone.
I hate the camera of this phone.
The film was good and the seats were fine.
The film was bad and the seats were awful.
He always answers his mail on the same day.
He never answers his mail on the same day.
The update made my laptop faster.
The update made my laptop slower.
The patient has a history of asthma.
The patient has no history of asthma.
""".strip().splitlines()
PAGES, ROUNDS = 12, 10


def apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distances of keys ``(n, d)`` and ``(m, d)``, L2, ``(n, m)``."""
    return np.sqrt(np.maximum(0, 2 - 2 * first.astype(np.float64) @ second.T))


def pages_together() -> list[list[str]]:
    """Several times all web pages in groups, no page in two of a time's."""
    pages = [edit["locality_prompt"] for edit in quality.rows("wikibio", None)]
    draw, found = random.Random(0), []
    for _ in range(ROUNDS):
        draw.shuffle(pages)
        whole = len(pages) // PAGES * PAGES
        found.append([" ".join(pages[at : at + PAGES]) for at in range(0, whole, PAGES)])
    return found


def main() -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as work:
        folder = encoder(Path(work))
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
    known = of_model(model, tokenizer, fingerprint="", is_kept=False)

    def keyed(texts: Sequence[str], made: Any = TextKeys) -> np.ndarray:
        keys = made(model, tokenizer, lambda: known)
        return np.stack([keys.key(tokenizer(text)["input_ids"]) for text in texts])

    first, again, beside = (keyed(TEXTS[at::3]) for at in range(3))
    contrary = [keyed(OPPOSITES[at::2]) for at in range(2)]
    to_again, to_other = apart(again, first), apart(first, first)
    pairs = np.triu_indices(len(first), 1)
    own = to_again.argmin(axis=1) == np.arange(len(first))
    several = pages_together()
    words = np.mean([len(text.split()) for texts in several for text in texts])
    of_long = {
        made: np.concatenate(
            [
                apart(found, found)[np.triu_indices(len(found), 1)]
                for found in (keyed(texts, made) for texts in several)
            ]
        )
        for made in (TextKeys, WithAll)
    }
    print(
        f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, Python {platform.python_version()}"
    )
    print(f"{len(first)} texts, {len(pairs[0])} pairs; {of_long[TextKeys].size} pairs of long ones")
    print(f"long texts: {words:.0f} words on average")
    print("scope      radius  again  beside  opposite  other  long")
    for scope in ("strict", "balanced", "broad"):
        radius = GraceConfig().initial_radius("text", scope)
        print(
            f"{scope:9s}  {radius:6.2f}  {(own & (np.diag(to_again) < radius)).mean():5.3f}  "
            f"{(np.diag(apart(beside, first)) < radius).mean():6.3f}  "
            f"{(np.diag(apart(*contrary)) < radius).mean():8.3f}  "
            f"{(to_other[pairs] < radius).mean():5.3f}  "
            f"{(of_long[TextKeys] < radius).mean():.3f} "
            f"[{(of_long[WithAll] < radius).mean():.3f}]"
        )


class WithAll(TextKeys):
    """Keys of texts from which nothing is taken out."""

    _typical = None


if __name__ == "__main__":
    main()
