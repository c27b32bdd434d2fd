"""Keeping other libraries off the user's terminal while they work for us.

transformers and huggingface_hub draw progress bars and log to stderr by default. editkit reports
progress through its own `Progress` and turns failures into errors, so their output would only
repeat or contradict it. Everything is put back afterwards: the process may not be ours alone.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_hub", "quiet_transformers"]


@contextmanager
def quiet_hub() -> Iterator[None]:
    """No bars, warnings or log lines of huggingface_hub within the block."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    were_off = are_progress_bars_disabled()
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        disable_progress_bars()
        try:
            yield
        finally:
            logger.setLevel(level)
            if not were_off:
                enable_progress_bars()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No bars, warnings or log lines of transformers (or of the hub below it) within the block."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    were_on = transformers_logging.is_progress_bar_enabled()
    with quiet_hub():
        # Errors are logged before they are raised; only the raising is wanted.
        transformers_logging.set_verbosity(logging.CRITICAL)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
        try:
            yield
        finally:
            transformers_logging.set_verbosity(level)
            if were_on:
                transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
