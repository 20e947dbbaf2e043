"""The built-in scorers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from agentfarm.errors import EvalError
from agentfarm.evals import _text
from agentfarm.evals._json_scorer import JsonSchemaScorer
from agentfarm.evals._scoring import Score

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentfarm.evals._scoring import ScoreContext, Scorer
    from agentfarm.evals._suite import Task


def _need_target(task: Task) -> None:
    if not task.targets or any(not text.strip() for text in task.targets):
        raise task.error("has no target, or a blank one", "Say what answer is right.")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Exact:
    name: ClassVar[str] = "exact"
    ignore_case: bool
    trim: bool

    def check(self, task: Task) -> None:
        _need_target(task)

    def __call__(self, context: ScoreContext) -> Score:
        answer = self._plain(context.text)
        right = answer in {self._plain(text) for text in context.task.targets}
        why = "equals the target" if right else "differs from the target"
        return Score(value=float(right), answer=answer, explanation=why)

    def _plain(self, text: str) -> str:
        return _text.normalise(text, ignore_case=self.ignore_case, trim=self.trim)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Includes:
    name: ClassVar[str] = "includes"
    ignore_case: bool
    whole_words: bool
    need_all: bool

    def check(self, task: Task) -> None:
        _need_target(task)

    def __call__(self, context: ScoreContext) -> Score:
        text = self._plain(context.text)
        targets = context.task.targets
        found = [target for target in targets if self._in(self._plain(target), text)]
        right = len(found) == len(targets) if self.need_all else bool(found)
        missing = [target for target in targets if target not in found]
        why = f"contains {found}" if right else f"does not contain {missing}"
        return Score(value=float(right), answer=", ".join(found), explanation=why)

    def _in(self, part: str, text: str) -> bool:
        return _text.contains_words(text, part) if self.whole_words else part in text

    def _plain(self, text: str) -> str:
        return _text.normalise(text, ignore_case=self.ignore_case, trim=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Regex:
    name: ClassVar[str] = "regex"
    pattern: str | None
    full: bool
    ignore_case: bool

    def check(self, task: Task) -> None:
        if self.pattern is None:
            _need_target(task)
        for pattern in self._patterns(task):
            try:
                re.compile(pattern)
            except re.error as error:
                raise task.error(
                    f"has the pattern {pattern!r}, which does not compile: {error}",
                    "Mend it; Python's `re` is used.",
                ) from None

    def __call__(self, context: ScoreContext) -> Score:
        flags = re.IGNORECASE if self.ignore_case else 0
        for pattern in self._patterns(context.task):
            # `re` keeps compiled patterns, so compiling here costs a lookup.
            compiled = re.compile(pattern, flags)
            match = (compiled.fullmatch if self.full else compiled.search)(context.text)
            if match:
                why = f"matches {pattern}"
                return Score(value=1.0, answer=match.group(), explanation=why)
        return Score(value=0.0, explanation="does not match")

    def _patterns(self, task: Task) -> tuple[str, ...]:
        return (self.pattern,) if self.pattern is not None else task.targets


@dataclass(frozen=True, kw_only=True, slots=True)
class _Numeric:
    name: ClassVar[str] = "numeric"
    tolerance: float
    relative: float
    pick: Literal["last", "first", "only"]

    def check(self, task: Task) -> None:
        _need_target(task)
        for text in task.targets:
            if len(_text.numbers(text)) != 1:
                raise task.error(
                    f"has the target {text!r}, which is not one number",
                    "Write it like 1234.5, 1e3 or 3/4.",
                )

    def __call__(self, context: ScoreContext) -> Score:
        found = _text.numbers(context.text)
        if not found:
            return Score(value=0.0, explanation="holds no number")
        if self.pick == "only" and len(found) > 1:
            return Score(value=0.0, explanation=f"holds {len(found)} numbers")
        answer = found[0 if self.pick == "first" else -1]
        wanted = [_text.numbers(text)[0] for text in context.task.targets]
        right = any(
            abs(answer - target) <= max(self.tolerance, self.relative * abs(target))
            for target in wanted
        )
        plain = f"{answer:.15g}"
        why = f"{plain} is {'near' if right else 'not near'} the target"
        return Score(value=float(right), answer=plain, explanation=why)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Choice:
    name: ClassVar[str] = "choice"
    letters: str

    def check(self, task: Task) -> None:
        _need_target(task)
        letters = self._letters(task)
        if len(letters) < 2:
            raise task.error("has fewer than two choices", "Add some to `choices`.")
        for text in task.targets:
            if self._target(task, text) is None:
                raise task.error(
                    f"has the target {text!r}, which is no choice",
                    f"Use one of {', '.join(letters)} or a choice's own text.",
                )

    def __call__(self, context: ScoreContext) -> Score:
        task = context.task
        letter = _text.chosen_letter(context.text, self._letters(task), task.choices)
        if letter is None:
            return Score(value=0.0, explanation="picks no choice clearly")
        right = letter in {self._target(task, text) for text in task.targets}
        why = f"picks {letter}, which is {'right' if right else 'wrong'}"
        return Score(value=float(right), answer=letter, explanation=why)

    def _letters(self, task: Task) -> str:
        return task.letters or self.letters

    def _target(self, task: Task, text: str) -> str | None:
        options = [_text.normalise(option) for option in task.choices]
        # "B" may be the text of a choice; then that choice is meant.
        if _text.normalise(text) in options:
            return task.letters[options.index(_text.normalise(text))]
        letter = text.strip().upper()
        known = len(letter) == 1 and letter in self._letters(task)
        return letter if known else None


def exact(*, ignore_case: bool = True, trim: bool = True) -> Scorer:
    """Right if the whole answer is the target, or one of the targets.

    Both are compared as Unicode NFKC with each run of white space one blank.
    With `trim` quotes, backticks, ``*``, ``_`` and the punctuation ``.,;:!?`` at
    the ends do not count; with `ignore_case` case does not.
    """
    return _Exact(ignore_case=ignore_case, trim=trim)


def includes(
    *, ignore_case: bool = True, whole_words: bool = True, need_all: bool = False
) -> Scorer:
    """Right if the target occurs in the answer.

    Both are compared as Unicode NFKC with each run of white space one blank.

    Args:
        ignore_case: Case does not count.
        whole_words: The target may not be part of a longer word. Switch it off
            for scripts without blanks between words.
        need_all: Of several targets all must occur, not one.
    """
    return _Includes(
        ignore_case=ignore_case, whole_words=whole_words, need_all=need_all
    )


def regex(
    pattern: str | None = None, *, full: bool = False, ignore_case: bool = False
) -> Scorer:
    """Right if a pattern of Python's `re` matches the answer.

    White space around the answer is cut off first; nothing else is changed.

    Args:
        pattern: The task's targets are the patterns if None.
        full: The pattern must match the whole answer and not occur in it.
        ignore_case: Case does not count.
    """
    return _Regex(pattern=pattern, full=full, ignore_case=ignore_case)


def numeric(
    *,
    tolerance: float = 1e-9,
    relative: float = 0.0,
    pick: Literal["last", "first", "only"] = "last",
) -> Scorer:
    """Right if the answer's number is near the target.

    Read are ``1,234.5``, ``.5``, ``1e3``, ``3/4`` and a minus written as ``-`` or
    U+2212 directly before the first digit. A comma separates thousands. Currency,
    percent and units do not change a number.

    Args:
        tolerance: Largest distance from the target that is right.
        relative: The same as a share of the target; the larger of both counts.
        pick: Which number counts where the answer holds several; with ``only``
            several are wrong.

    Raises:
        EvalError: A tolerance is negative or `pick` unknown.
    """
    if tolerance < 0 or relative < 0:
        raise EvalError(
            f"numeric() got tolerance={tolerance}, relative={relative}.",
            remedy="Neither may be negative.",
        )
    if pick not in {"last", "first", "only"}:
        raise EvalError(
            f"numeric() got pick={pick!r}.", remedy="Use last, first or only."
        )
    return _Numeric(tolerance=tolerance, relative=relative, pick=pick)


def choice(letters: str = "ABCD") -> Scorer:
    """Right if the answer picks the target's letter of a multiple-choice question.

    "B", "(b)", "B) Paris", "The answer is B." and the text of one choice are read;
    the article in "A cat" is no choice, and an answer with several letters picks
    none. The target is a letter or the text of a choice.

    Args:
        letters: The letters to expect where the task has no `choices`.

    Raises:
        EvalError: `letters` are not different capitals from A to Z.
    """
    if len(set(letters)) != len(letters) or not re.fullmatch("[A-Z]+", letters):
        raise EvalError(
            f"choice() got letters={letters!r}.", remedy="Use capitals such as ABCD."
        )
    return _Choice(letters=letters)


def json_schema(
    schema: Mapping[str, Any] | None = None, *, partial: bool = False
) -> Scorer:
    """Right if the answer is JSON that follows a schema and holds the target.

    The JSON may be all of the answer, a fenced block, or the first value inside
    it. Of a target that is a mapping every field must be there with that value;
    further fields do not count. Texts are compared like in `exact`, a boolean
    equals no number. A ``$ref`` is never fetched from a network.

    Args:
        schema: JSON schema, draft 2020-12; the task's `response_schema` if None.
        partial: Score the share of right ones of: the schema, and each field of
            the target.
    """
    return JsonSchemaScorer(schema=schema, partial=partial)


_SCORERS: dict[str, Callable[..., Scorer]] = {
    "choice": choice,
    "exact": exact,
    "includes": includes,
    "json_schema": json_schema,
    "numeric": numeric,
    "regex": regex,
}


def make_scorer(spec: str | Mapping[str, Any]) -> Scorer:
    """Build a scorer as a suite file names it.

    Args:
        spec: A name, or a mapping of ``name`` and the scorer's arguments.

    Raises:
        EvalError: The name or an argument is unknown.
    """
    options = dict(spec) if isinstance(spec, Mapping) else {"name": spec}
    name = options.pop("name", None)
    factory = _SCORERS.get(name) if isinstance(name, str) else None
    if factory is None:
        raise EvalError(
            f"There is no scorer {name!r}.", remedy=f"Use one of {', '.join(_SCORERS)}."
        )
    try:
        return factory(**options)
    except TypeError as error:
        raise EvalError(
            f"The scorer {name} cannot be built: {error}.",
            remedy="Look at its arguments in the documentation of agentfarm.evals.",
        ) from None
