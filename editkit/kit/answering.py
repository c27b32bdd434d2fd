"""The part of a kit that asks the running model: what it says, how likely it is, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from editkit.engines.transformers.stepping import Watch
from editkit.engines.transformers.tokens import Encoder
from editkit.kit.inference import Asker, ChatLike, VersionLike
from editkit.methods.grace.method import Learner
from editkit_store.records import Explanation, Generation, Score

__all__ = ["AskingMethods"]


class AskingMethods:
    """Methods of ``Kit``; the attributes are the kit's."""

    _asker: Asker
    _encoder: Encoder
    _learner: Learner

    @overload
    def generate(
        self, prompt: str, *, version: str | None = None, max_new_tokens: int = 64, **options: Any
    ) -> Generation: ...
    @overload
    def generate(
        self,
        prompt: Sequence[str],
        *,
        version: VersionLike = None,
        max_new_tokens: int = 64,
        **options: Any,
    ) -> list[Generation]: ...
    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        version: VersionLike = None,
        max_new_tokens: int = 64,
        chat: bool = False,
        **options: Any,
    ) -> Generation | list[Generation]:
        """Returns what the corrected model says.

        Args:
            prompt: One prompt, or several (run as a batch).
            version: Answer as of this version; disturbs nobody else. With several prompts, also
                one version a prompt.
            max_new_tokens: Limit of each continuation, tokens.
            chat: Take each prompt as a user turn, through the model's chat template.
            **options: For the model's ``generate``, e.g. ``do_sample=True`` or ``streamer=...``;
                greedy by default.

        Returns:
            A ``Generation``; for a list of prompts, a list. A classifier's text is its label.

        Raises:
            InvalidRequest, PromptTooLong: The prompt is empty or too long.
            UnknownVersion: No such version.
            ArtifactsMissing: That version holds edits this model has not learned.
        """
        several = not isinstance(prompt, str)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        found = self._asker.answers(prompts, version, max_new_tokens, options, chat=chat)
        return found if several else found[0]

    def chat(
        self,
        messages: ChatLike,
        *,
        version: str | None = None,
        max_new_tokens: int = 256,
        **options: Any,
    ) -> Generation:
        """Returns the assistant's next turn, through the model's chat template.

        Args:
            messages: The conversation so far, ending with a user turn.
            version: Answer as of this version.
            max_new_tokens: Limit, tokens.
            **options: For the model's ``generate``.

        Raises:
            As ``generate``; ``UnsupportedModel`` when the tokenizer has no chat template.
        """
        return self._asker.chat(messages, version, max_new_tokens, options)

    def generate_tokens(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        version: VersionLike = None,
        max_new_tokens: int = 64,
        watch: Watch | None = None,
        **options: Any,
    ) -> list[Generation]:
        """Returns what the corrected model says to prompts that are tokens, see ``encoder``.

        Args:
            prompts: Token ids.
            version: One for all, or one a prompt.
            max_new_tokens: Limit of each continuation, tokens.
            watch: Told about every decoding step, and may end rows; of one batch of 16 at most.
            **options: As ``generate``.

        Raises:
            As ``generate``.
        """
        if watch is not None:
            options["watch"] = watch
        return self._asker.continued(prompts, version, max_new_tokens, options)

    def key(self, prompt: str) -> npt.NDArray[np.float32]:
        """Returns what a prompt is looked up by, ``(d,)`` float32; see ``GraceConfig.key``.

        Raises:
            InvalidRequest, PromptTooLong: As ``generate``.
        """
        return np.asarray(self._learner.key(self._encoder.prompt(prompt)).numpy())

    def score(self, prompt: str, target: str, *, version: str | None = None) -> Score:
        """Returns how likely an answer is, without generating: one pass with the answer given.

        Args:
            prompt: The prompt.
            target: What the model might say there; of a classifier a label.
            version: As of this version.

        Raises:
            InvalidRequest, EmptyTarget, PromptTooLong, UnknownVersion, ArtifactsMissing: As ``add``
                and ``generate``.
        """
        return self.scores([prompt], [target], version=version)[0]

    def scores(
        self, prompts: Sequence[str], targets: Sequence[str], *, version: VersionLike = None
    ) -> list[Score]:
        """Returns how likely answers are, one a prompt; see ``score``.

        Args:
            prompts: The prompts.
            targets: An answer to each.
            version: One version for all, or one a prompt.
        """
        return self._asker.scores(prompts, targets, version)

    def explain(
        self,
        prompt: str | None = None,
        *,
        chat: ChatLike | None = None,
        version: str | None = None,
        k: int = 5,
    ) -> Explanation:
        """Returns which edit fires for a prompt, and how near the others are.

        Args:
            prompt: The prompt.
            chat: A conversation instead.
            version: Explain as of this version.
            k: Number of candidates, nearest first.

        Raises:
            As ``generate``.
        """
        return self._asker.explain(prompt, chat, version, k)
