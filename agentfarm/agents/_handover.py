"""Keep what one agent hands to the next within a token budget.

Tokens are estimated as characters / 4 here: the count of a real tokenizer differs
by language and model, and a budget for hand-overs need not be exact.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CHARS_PER_TOKEN = 4

_SENTENCE_END = re.compile(r"[.!?…](?=\s)|\n")
_FILE_OF_DIFF = re.compile(r"^(?=diff --git )", re.MULTILINE)
_FILE_OF_PLAIN_DIFF = re.compile(r"^(?=--- [^\n]*\n\+\+\+ )", re.MULTILINE)
_SHARE_CHARS = 120  # less of a file tells nothing


def estimate_tokens(text: str) -> int:
    """Tokens of a text, estimated as characters / 4, rounded up."""
    return -(-len(text) // CHARS_PER_TOKEN)


def handover(text: str, max_tokens: int) -> str:
    """The beginning of a text within a budget, whole sentences where possible.

    What was left out is said at the end. Tokens are estimated as characters / 4.
    """
    text = text.strip()
    limit = max(0, max_tokens) * CHARS_PER_TOKEN
    if len(text) <= limit:
        return text
    # The notice gets longer with its number, so it is measured at its longest.
    room = limit - len(_notice(len(text)))
    if room <= 0:
        return text[:limit]
    kept = _whole(text[: room + 1], room)
    return kept + _notice(len(text) - len(kept))


def shortened(text: str, max_tokens: int) -> str:
    """Both ends of a text within a budget; says how much is missing between them.

    For output and evidence, where the last lines matter as much as the first.
    Tokens are estimated as characters / 4.
    """
    return _both_ends(text.strip(), max(0, max_tokens) * CHARS_PER_TOKEN)


def shortened_diff(diff: str, max_tokens: int) -> str:
    """A unified diff within a budget, each file with its head and its tail.

    Short files stay whole and leave the rest of their share to the long ones. Files
    for which no room is left are counted. Tokens are estimated as characters / 4.
    """
    diff = diff.strip("\n")
    limit = max(0, max_tokens) * CHARS_PER_TOKEN
    if len(diff) <= limit:
        return diff
    files = _files_of(diff)
    shown = files[: max(1, limit // _SHARE_CHARS)]
    notice = _more_files(len(files) - len(shown))
    shares = _shares([len(file) for file in shown], limit - len(notice) - len(shown))
    parts = [_both_ends(file, share) for file, share in zip(shown, shares, strict=True)]
    return ("\n".join(parts) + notice)[:limit]


def bounded_list(names: Sequence[str], most: int) -> str:
    """Names one a line, those beyond the limit counted only."""
    lines = [f"- {name}" for name in names[:most]]
    if len(names) > most:
        lines.append(f"- and {len(names) - most} more")
    return "\n".join(lines)


def _notice(count: int) -> str:
    return f" [cut here: {count} more characters]"


def _whole(text: str, room: int) -> str:
    """The longest beginning that ends with a sentence, or else with a word."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    fitting = [end for end in ends if room // 2 <= end <= room]
    if fitting:
        return text[: fitting[-1]].rstrip()
    space = max(text.rfind(" ", room // 2), text.rfind("\n", room // 2))
    return (text[:space] if space > 0 else text[:room]).rstrip()


def _both_ends(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    room = limit - len(_gap(len(text)))
    if room < 2:
        return text[: max(0, limit)]
    head = room - room // 2
    tail = room // 2
    return text[:head] + _gap(len(text) - room) + text[len(text) - tail :]


def _gap(count: int) -> str:
    return f"\n[… {count} characters left out …]\n"


def _files_of(diff: str) -> list[str]:
    pattern = _FILE_OF_DIFF if _FILE_OF_DIFF.search(diff) else _FILE_OF_PLAIN_DIFF
    return [part.strip("\n") for part in pattern.split(diff) if part.strip()]


def _more_files(count: int) -> str:
    return f"\n[… {count} more files left out …]" if count else ""


def _shares(lengths: Sequence[int], total: int) -> list[int]:
    """Split a total so that no share is larger than needed, nor than a fair one."""
    shares = [0] * len(lengths)
    left = max(0, total)
    waiting = sorted(range(len(lengths)), key=lambda index: lengths[index])
    for position, index in enumerate(waiting):
        shares[index] = min(lengths[index], left // (len(waiting) - position))
        left -= shares[index]
    return shares
