"""Short descriptions of operations, for logs."""

from __future__ import annotations

from collections.abc import Sequence

from editkit_store.history.log import Operation
from editkit_store.history.versions import format_version

__all__ = ["describe"]

_LONG = 80  # characters of a prompt
_MOST = 3  # prompts


def describe(operation: Operation) -> str:
    """Returns a short description of what an operation did."""
    detail = operation.detail
    target = "" if operation.target_version is None else format_version(operation.target_version)
    match operation.kind:
        case "rollback":
            return f"back to {target}"
        case "undo":
            return f"took back {format_version(detail['undoes'])} ({detail['undone']})"
        case "redo":
            return f"did {format_version(detail['redoes'])} ({detail['redone']}) again"
        case "tag":
            return f"{target} is '{detail['tag']}'"
        case "replay" if "records" in detail:
            return f"learned {len(detail['records'])} on {detail['model']}"
        case "replay":
            counts = ", ".join(
                f"{detail.get(key, 0)} {key}" for key in ("restored", "learned", "failed")
            )
            return f"up to {target}: {counts}"
        case "adjust":
            said = [("also", detail["also"]), ("not", detail["not"])]
            found = "; ".join(f"{word} {_quoted(some)}" for word, some in said if some)
            if operation.changed:
                return found
            return f"did not verify at {_quoted(detail['failed'])}; the reach is as before"
        case "import" if detail["requests"]:
            brought = len(detail["requests"])
            return f"brought {brought} edit{'' if brought == 1 else 's'} from a bundle, " + (
                f"{detail.get('active', 0)} active"
            )
        case "import" if detail.get("adjustments"):
            count = len(detail["adjustments"])
            return f"adjusted {count} edit{'' if count == 1 else 's'} as in a bundle"
        case "import":
            return f"brought {detail.get('artifacts', 0)} artifacts from a bundle"
        case "revert" if detail.get("deferred"):
            return f"took back {operation.edit_id}, deferred: the weights that it shares stay"
        case "revert" if detail.get("relearned"):
            return f"took back {operation.edit_id}, learned {len(detail['relearned'])} again"
        case "revert":
            return f"took back {operation.edit_id}"
        case "add" if not operation.changed:
            return "did not verify; not active"
        case "add" if detail.get("supersedes"):
            return "supersedes " + ", ".join(detail["supersedes"])
        case _:
            return ""


def _quoted(prompts: Sequence[str]) -> str:
    """Returns prompts in quotes, the first few and the beginning of long ones."""
    found = [f"'{one if len(one) <= _LONG else one[: _LONG - 1] + '…'}'" for one in prompts[:_MOST]]
    more = [f"{len(prompts) - _MOST} more"] if len(prompts) > _MOST else []
    return ", ".join([*found, *more])
