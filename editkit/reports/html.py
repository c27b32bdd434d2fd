"""Self-contained HTML pages from templates, without network access and scripts.

Content of records is always text on such a page, never markup: the templates escape it.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editkit_store.database.outputs import write_output
from editkit_store.errors import OutputUnwritable

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render", "save", "short"]

# Control characters are replaced, except newlines and tabs.
_CONTROLS = {code: "\ufffd" for code in (*range(0x20), 0x7F) if chr(code) not in "\n\t"}


def render(template: str, **values: Any) -> str:
    """Returns a page.

    Args:
        template: Name of its template in the folder ``templates``.
        values: Variables of the template.
    """
    return _environment().get_template(template).render(values)


def save(page: str, path: str | os.PathLike[str]) -> None:
    """Writes a page to a file, replacing an existing one.

    Args:
        page: The page.
        path: The file.

    Raises:
        OutputUnwritable: The file cannot be written.
        UnsafeTarget: The file is a store, or belongs to one.
    """
    target = Path(path)
    try:
        # Invalid Unicode (a lone surrogate) must not prevent writing the page.
        write_output(target, page.encode("utf-8", "xmlcharrefreplace"))
    except OSError as error:
        raise OutputUnwritable(
            f"the page '{target}' cannot be written: {error.strerror}",
            path=target,
            hint="name a file in an existing folder that can be written to",
        ) from error


def short(digest: str) -> str:
    """Returns a unique prefix of a digest."""
    return digest.rpartition(":")[2][:12]


@functools.cache
def _environment() -> Environment:
    import jinja2  # lazy: only needed for writing a page

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("editkit.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["short"] = short
    return environment


def _printable(value: Any) -> Any:
    """Replaces control characters in a text; markup is passed through."""
    return value.translate(_CONTROLS) if type(value) is str else value
