"""How answers are read: normalised text, numbers, chosen letters, JSON."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
_QUOTES = '"`“”«»\N{LEFT SINGLE QUOTATION MARK}' + _APOSTROPHES
_AROUND = " \t\r\n*_.,;:!?" + _QUOTES
_DASHES = "-\N{EN DASH}\N{EM DASH}"
# Atomic groups keep a hostile answer from costing quadratic time.
_NUMBER = re.compile(
    r"""
    (?<!\w)(?<!\d\.)                # not inside a word or a version such as 1.2.3
    (?P<sign>[+-]?)
    (?: (?P<whole>(?>\d+(?:,\d+)*)) (?P<decimals>\.\d+)? | (?P<point>(?<!\.)\.\d+) )
    (?P<exponent>[eE][+-]?\d+)?
    (?:/(?P<under>(?>\d+))(?!/))?
    """,
    re.VERBOSE,
)
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+")
_FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*?)```", re.DOTALL)


def normalise(text: str, *, ignore_case: bool = True, trim: bool = True) -> str:
    """Text with differences removed that a person would not see as such.

    Unicode NFKC, each run of white space one blank, none at the ends. With
    `trim` also without quotes, backticks, ``*``, ``_`` and the punctuation
    ``.,;:!?`` at the ends; with `ignore_case` case-folded.
    """
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    if trim:
        text = text.strip(_AROUND) or text
    return text.casefold() if ignore_case else text


def numbers(text: str) -> list[float]:
    """All finite numbers in a text, in order.

    Read are ``1,234.5``, ``.5``, ``1e3``, ``3/4`` and a minus written as ``-``
    or U+2212 directly before the first digit, unless a word or digit stands
    before it (``5-3`` is 5 and 3). Currency, percent and units around a number
    do not change it. Commas are thousands separators, never decimal ones.
    """
    plain = text.replace("\N{MINUS SIGN}", "-")
    found = (_values(match, plain) for match in _NUMBER.finditer(plain))
    return [value for values in found for value in values if math.isfinite(value)]


def _values(match: re.Match[str], text: str) -> list[float]:
    """The numbers of one match: several where commas make a list."""
    whole = match["whole"] or ""
    if _THOUSANDS.fullmatch(whole):
        whole = whole.replace(",", "")
    parts = whole.split(",")
    parts[0] = match["sign"] + parts[0]
    parts[-1] += (match["decimals"] or match["point"] or "") + (match["exponent"] or "")
    values = [float(part) for part in parts]
    if match["under"]:
        under = float(match["under"])
        before = text[max(0, match.start() - 2) : match.start()]
        if before.endswith("/") and before[0].isdecimal():  # a date
            values.append(under)
        else:
            values[-1] = values[-1] / under if under else math.nan
    return values


def chosen_letter(text: str, letters: str, choices: Sequence[str] = ()) -> str | None:
    """The letter that an answer to a multiple-choice question picks, or None.

    Tried in turn, the first that yields something decides:

    1. the last "answer is B", "answer: (b)", "option B", "choose B"
    2. capitals that are joined, "A or B", of which none is chosen
    3. a letter that opens or is the answer: "B", "(b)", "B.", "b) Paris"
    4. the only letter in brackets, or the only capital standing alone; for
       A and I, which are words, only with a bracket, stop or colon behind it
    5. the only option whose text occurs in the answer

    Several different letters in one step are no answer.
    """
    plain = re.sub(r"[*_`$]|\\boxed|\\text", "", text).replace("{", "(")
    lines = (" ".join(line.split()) for line in plain.replace("}", ")").splitlines())
    # With single blanks no pattern below can take quadratic time.
    plain = "\n".join(line for line in lines if line)
    every = letters + letters.lower()
    found = (
        _announced(plain, every)
        or _joined(plain, letters)
        or _opening(plain, every, choices)
        or _alone(plain, every)
    )
    if found:
        return found.pop().upper() if len(found) == 1 else None
    return _by_text(plain, letters, choices)


def _announced(text: str, every: str) -> set[str]:
    pattern = re.compile(
        r"\b(?:answer|choice|option|choose|pick|select)\b"
        r"(?:\s+(?:is|would\s+be|must\s+be|option|letter))*\s*[:=]?\s*"
        rf"(\((?P<b>[{every}])\)|(?P<l>[{every}])(?![\w{_APOSTROPHES}]))"
        r"(?P<after>\s+\w)?",
        re.IGNORECASE,
    )
    pair = _pair(every.upper())
    last: set[str] = set()
    for match in pattern.finditer(text):
        letter = match["b"] or match["l"]
        # "The answer is a fruit" has an article and no letter.
        if match["l"] and letter in "ai" and match["after"]:
            continue
        joined = pair.match(text, match.start(1))
        last = set(joined.groups()) if joined else {letter.upper()}
    return last


def _joined(text: str, capitals: str) -> set[str]:
    """The letters of the first "A or B"."""
    match = _pair(capitals).search(text)
    return set(match.groups()) if match else set()


def _pair(capitals: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?<!\w)[(\[]?([{capitals}])[)\].]?\s*(?:\b(?:or|and)\b|[,/&])\s*"
        rf"[(\[]?([{capitals}])(?!\w)"
    )


def _opening(text: str, every: str, choices: Sequence[str]) -> set[str]:
    match = re.match(rf"[(\[]?([{every}])(?!\w)[)\].:,]*(\s*)(.*)", text, re.DOTALL)
    if not match:
        return set()
    letter, rest = match[1], match[3]
    listed = re.findall(rf"^[(\[]?([{every}])[)\].:]", text, re.MULTILINE)
    if len({other.upper() for other in listed}) > 1:
        return {other.upper() for other in listed}
    marked = match.end(1) != match.start(2)
    own_text = choices[_index(letter)] if choices else None
    repeats = own_text is not None and normalise(rest).startswith(normalise(own_text))
    if not rest or marked or repeats or rest[0] in _DASHES + "=" or "\n" in match[2]:
        return {letter.upper()}
    return set()


def _index(letter: str) -> int:
    return ord(letter.upper()) - ord("A")


def _alone(text: str, every: str) -> set[str]:
    found = {m.upper() for m in re.findall(rf"[(\[]([{every}])[)\]]", text)}
    if found:
        return found
    edge = rf"[\w{_APOSTROPHES}]"
    for match in re.finditer(rf"(?<!{edge})([{every}])(?!{edge})([).:]?)", text):
        letter, mark = match.groups()
        if letter.isupper() and (mark or letter not in "AI"):
            found.add(letter)
    return found


def _by_text(text: str, letters: str, choices: Sequence[str]) -> str | None:
    answer = normalise(text)
    found = [
        letter
        for letter, option in zip(letters, choices, strict=False)
        if contains_words(answer, normalise(option))
    ]
    return found[0] if len(found) == 1 else None


def contains_words(text: str, part: str) -> bool:
    """Whether `part` occurs in `text` and cuts no word at its ends."""
    start = text.find(part)
    while start >= 0:
        before = text[start - 1 : start] if start else ""
        after = text[start + len(part) : start + len(part) + 1]
        cuts_before = _is_word(before) and _is_word(part[:1])
        if not cuts_before and not (_is_word(after) and _is_word(part[-1:])):
            return True
        start = text.find(part, start + 1)
    return False


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def find_json(text: str) -> Any:
    """The JSON value in an answer: all of it, a fenced block, or the first inside.

    Raises:
        ValueError: There is none.
    """
    fenced = _FENCE.search(text)
    for candidate in (text.strip(), fenced[1].strip() if fenced else ""):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    return _first_json(text)


def _first_json(text: str) -> Any:
    decoder = json.JSONDecoder()
    # A hostile answer of many brackets must not cost quadratic time.
    for match in list(re.finditer(r"[{\[]", text))[:50]:
        try:
            return decoder.raw_decode(text, match.start())[0]
        except (ValueError, RecursionError):
            continue
    raise ValueError("the answer holds no JSON")


def to_json(value: Any) -> str:
    """A JSON value on one line."""
    return json.dumps(value, ensure_ascii=False)
