"""Files in an answer: fenced code blocks that say which file they are.

Models that do not use tools answer so. Only what is beyond doubt is taken: a whole,
closed block with a file name in one of the usual places.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FILES = 20

_OPENING = re.compile(r"(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`\n]*)")
# A path with an extension; no blank, nothing hidden, nothing above or absolute.
_NAME = r"(?:\w[\w.-]*/){0,8}\w[\w.-]*\.[A-Za-z]\w{0,9}"
_IN_INFO = re.compile(
    rf"(?:[\w+#-]*[:\s])?\s*\{{?(?:(?:title|filename|file|path|name)\s*[=:]\s*)?"
    rf"[\"']?(?P<name>{_NAME})[\"']?\}}?"
)
_IN_COMMENT = re.compile(
    rf"\s*(?:#|//|--|;|/\*|<!--)\s*(?:file(?:\s?name)?|path|fil)\s*:\s*"
    rf"`?(?P<name>{_NAME})`?\s*(?:\*/|-->)?\s*",
    re.IGNORECASE,
)
_BEFORE = re.compile(
    rf"\s*(?:#{{1,6}}\s+|[-*]\s+|\d+\.\s+)?(?:\*\*|__)?"
    rf"(?:(?:file(?:\s?name)?|fil)\s*:\s*)?(?:\*\*|__)?\s*"
    rf"`?(?P<name>{_NAME})`?\s*:?(?:\*\*|__)?\s*:?\s*",
    re.IGNORECASE,
)
# These show changes, sessions or results, not the content of a file.
_NOT_CONTENT = frozenset({"diff", "patch", "console", "shell-session", "output"})
_LEFT_OUT = re.compile(
    r"^[ \t]*(?:#|//|--|/\*|<!--)[ \t]*(?:\.{3}|…|.*\b(?:rest of the|remaining|existing) "
    r"(?:code|file|functions?|methods?)\b|.*\b(?:unchanged|resten av|oförändrad))",
    re.IGNORECASE | re.MULTILINE,
)


def fenced_files(text: str) -> dict[str, str]:
    """Files that a text holds as fenced code, content by name.

    The name is in the info string (```` ```python title="x.py" ````, also
    ``filename=``, ``python:x.py`` or the bare name), in a comment on the first line
    (``# file: x.py``, which is then no part of the content), or alone on the last
    line before the fence (``**x.py**``, ``### x.py``, ``File: x.py``). Not taken are
    blocks that are not closed, diffs, sessions, and those that leave something out
    ("... rest unchanged"). Of two blocks for one file the last stands; beyond
    twenty files, none is taken.
    """
    files: dict[str, str] = {}
    for info, before, lines in _blocks(text):
        name, body = _named(info, before, lines)
        content = "\n".join(body)
        words = info.split(maxsplit=1)
        language = words[0].lower() if words else ""
        if not name or language in _NOT_CONTENT or _LEFT_OUT.search(content):
            continue
        if content.strip():
            files[name] = f"{content}\n"
    return files if len(files) <= MAX_FILES else {}


def without_fences(text: str) -> str:
    """A text without its fenced code blocks, an unclosed one included."""
    kept: list[str] = []
    fence = ""
    for line in text.splitlines():
        if fence:
            if _closes(line, fence):
                fence = ""
        elif opening := _OPENING.fullmatch(line.strip()):
            fence = opening["fence"]
        else:
            kept.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()


def _blocks(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Info string, the last line before it, and the lines of each closed block."""
    before = ""
    lines = iter(text.splitlines())
    for line in lines:
        opening = _OPENING.fullmatch(line.strip())
        if opening is None:
            before = line if line.strip() else before
            continue
        body: list[str] = []
        for inner in lines:
            if _closes(inner, opening["fence"]):
                yield opening["info"].strip(), before, _dedented(line, body)
                break
            body.append(inner)
        before = ""


def _closes(line: str, fence: str) -> bool:
    bare = line.strip()
    return len(bare) >= len(fence) and bare == fence[0] * len(bare)


def _dedented(opening: str, body: list[str]) -> list[str]:
    """The lines of a block without the indentation of its fence."""
    indent = opening[: len(opening) - len(opening.lstrip())]
    return [line.removeprefix(indent) for line in body]


def _named(info: str, before: str, lines: list[str]) -> tuple[str, list[str]]:
    """The file that a block is, and its content without a comment that says so."""
    comment = _IN_COMMENT.fullmatch(lines[0]) if lines else None
    body = lines[1:] if comment else lines
    for match in (_IN_INFO.fullmatch(info), comment, _BEFORE.fullmatch(before)):
        if match:
            return match["name"], body
    return "", body
