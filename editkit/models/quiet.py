"""Silencing other libraries' terminal output.

transformers and huggingface_hub draw progress bars and log to stderr by default. editkit reports
progress through its own `Progress` and translates failures to errors, so their output would only
repeat or contradict it. All settings are restored afterwards, since other code in the process may
use them.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_hub", "quiet_transformers"]


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Disables progress bars, warnings and log lines of huggingface_hub in its body."""
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
    """Disables progress bars, warnings and log lines of transformers and the hub in its body."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    were_on = transformers_logging.is_progress_bar_enabled()
    with quiet_hub():
        # Errors are logged before they are raised; the log line is redundant.
        transformers_logging.set_verbosity(logging.CRITICAL)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
        try:
            yield
        finally:
            transformers_logging.set_verbosity(level)
            if were_on:
                transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
