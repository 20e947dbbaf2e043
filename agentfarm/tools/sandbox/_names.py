"""Which file names may cross the sandbox's boundary, and how to show the others."""

from __future__ import annotations

import re
import unicodedata

NAME_BYTES = 1024
PART_BYTES = 255
PARTS = 32
SHOWN_CHARS = 200

# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [port + digit for port in ("com", "lpt") for digit in "0123456789¹²³"]
)
# Their hooks and settings run on the host at the researcher's next command there.
VERSION_CONTROL = frozenset({".git", "git~1", ".hg", ".svn", ".jj", ".bzr"})
# Printable ASCII without backslash and colon: nothing that `_is_unwanted` looks for.
_PLAIN = re.compile(r"[ -9;-\[\]-~]*")


def problem_with(name: str) -> str | None:
    """Say why a relative file name may not go into or out of a sandbox.

    Stricter than Linux, since the folder may lie on WSL or on a network share: what
    Windows reads as a device, a drive or a stream is refused too.

    Returns:
        A reason that follows the name in a sentence, or None if there is none.
    """
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    if not name:
        return "is empty"
    if len(encoded) > NAME_BYTES:
        return f"is longer than {NAME_BYTES} bytes"
    if name.startswith("/"):
        return "is absolute"
    if name.count("/") >= PARTS:
        return f"is deeper than {PARTS} parts"
    reasons = (_problem_with_part(part) for part in name.split("/"))
    return next((reason for reason in reasons if reason), None)


def _problem_with_part(part: str) -> str | None:
    """The same for what stands between two slashes."""
    if part in {"", ".", ".."}:
        return f"has the part '{part}'"
    if len(part.encode()) > PART_BYTES:
        return f"has a part longer than {PART_BYTES} bytes"
    if unwanted := _unwanted_char(part):
        return f"holds the character U+{ord(unwanted):04X}"
    if part[-1] in ". ":
        return "has a part that ends in a dot or a space"
    if part.split(".")[0].rstrip(" ").casefold() in DEVICES:
        return "is a device on Windows"
    if comparable(part) in VERSION_CONTROL:
        return "lies in a version control folder"
    return None


def _unwanted_char(part: str) -> str | None:
    if _PLAIN.fullmatch(part):
        return None
    return next((char for char in part if _is_unwanted(char)), None)


def _is_unwanted(char: str) -> bool:
    """Controls and invisible or reordering characters; backslash; the drive colon."""
    return char in "\\:" or unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"}


def comparable(name: str) -> str:
    """What two names have in common if some file system takes them for one file.

    Source: Unicode's canonical caseless matching, D145.
    """
    if name.isascii():
        return name.lower()
    folded = unicodedata.normalize("NFD", name).casefold()
    return unicodedata.normalize("NFC", folded)


def escaped(text: str) -> str:
    """Untrusted text for one line of a terminal or a message, shortened."""
    shown = "".join(map(_escaped_char, text[: SHOWN_CHARS + 1]))
    return shown if len(shown) <= SHOWN_CHARS else shown[: SHOWN_CHARS - 1] + "…"


def _escaped_char(char: str) -> str:
    code = ord(char)
    if char == "\\":
        return "\\\\"
    if char.isprintable():
        return char
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class Names:
    """The names of one set of files, none of which may stand in another's way."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def add(self, name: str) -> str | None:
        """Take a name, or say why it cannot be beside those that were taken."""
        key = comparable(name)
        parents = _parents(key)
        other = self._files.get(key) or self._folders.get(key)
        for parent in parents:
            other = other or self._files.get(parent)
        if other:
            return f"cannot be beside '{escaped(other)}'"
        self._files[key] = name
        for parent in parents:
            self._folders.setdefault(parent, name)
        return None


def _parents(key: str) -> list[str]:
    parts = key.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
