"""Read the report that pytest wrote in a sandbox, as untrusted as all it sends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

MAX_BYTES = 4 * 2**20
MAX_FAILURES = 50
MESSAGE_CHARS = 500

# A frame in a file of the work, as pytest's short tracebacks begin one.
_PLACE = re.compile(r"^((?!/|\.\./)[^\s:][^:\n]*\.py):(\d{1,7}): ", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """How the tests of one run of pytest ended.

    Attributes:
        passed, failed, errors, skipped: Number of tests; an error is one in a
            fixture or in the collection. Expected failures count as skipped.
        failures: Name and message of the first failures and errors, and file and
            line of the innermost frame in a file of the work, or None.
    """

    passed: int
    failed: int
    errors: int
    skipped: int
    failures: tuple[dict[str, Any], ...] = ()


def read_report(content: bytes) -> Report | None:
    """Read pytest's ``--junitxml`` file; None where it is not one.

    Source: the ``xunit2`` format of pytest, as `_pytest.junitxml` writes it.
    """
    if len(content) > MAX_BYTES:
        return None
    try:
        text = content.decode()
        if "<!" in text:
            return None  # pytest writes no document type, which may define entities
        root = ET.fromstring(text)  # noqa: S314 - no entities, bounded
    except (ValueError, ET.ParseError):
        return None
    counts = dict.fromkeys(("passed", "failure", "error", "skipped"), 0)
    failures: list[dict[str, Any]] = []
    for case in root.iter("testcase"):
        ended = {child.tag: child for child in case}
        outcome = next(
            (tag for tag in ("error", "failure", "skipped") if tag in ended), "passed"
        )
        counts[outcome] += 1
        if outcome in {"error", "failure"} and len(failures) < MAX_FAILURES:
            file, line = _place(ended[outcome])
            message = _message(ended[outcome])
            found = {"name": _name(case), "message": message, "file": file}
            failures.append({**found, "line": line})
    return Report(
        passed=counts["passed"],
        failed=counts["failure"],
        errors=counts["error"],
        skipped=counts["skipped"],
        failures=tuple(failures),
    )


def _name(case: ET.Element) -> str:
    parts = (case.get("classname"), case.get("name"))
    return "::".join(part for part in parts if part)[:MESSAGE_CHARS]


def _message(element: ET.Element) -> str:
    """The lines that pytest marks with E, or its one-line message."""
    lines = (element.text or "").splitlines()
    marked = [line[1:].strip() for line in lines if line.startswith("E ")]
    message = "\n".join(marked) or element.get("message") or ""
    return message[:MESSAGE_CHARS]


def _place(element: ET.Element) -> tuple[str | None, int | None]:
    places = _PLACE.findall(element.text or "")
    return (
        (places[-1][0][:MESSAGE_CHARS], int(places[-1][1])) if places else (None, None)
    )
