"""Tasks and the suites they form."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agentfarm.errors import EvalError
from agentfarm.evals._scoring import Scorer, TaskCheck, scorer_spec
from agentfarm.llm import Message

if TYPE_CHECKING:
    from agentfarm.evals._solver import Solver

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One question with what makes its answer right.

    Attributes:
        id: Unique within the suite.
        prompt: The question as one user turn; or give `messages`.
        messages: The conversation to answer, instead of `prompt`.
        target: What a right answer is, as the scorer reads it: a text, a number,
            a list of acceptable ones, or for ``json_schema`` the expected fields.
        scorer: Judges the answer.
        system: System turn; overrides the suite's.
        max_tokens: Longest answer; overrides the suite's.
        response_schema: JSON schema that the server makes the answer follow.
        choices: Options for ``choice``, lettered A, B, … below `prompt`.
        metadata: Kept with each sample, e.g. ``{"category": "math"}`` (JSON).
        files: What a solver finds in its workspace: texts by relative name.
        reference: A right answer, which the model ``reference`` plays: a text, or
            for a solver the files to write.

    Raises:
        EvalError: A field is malformed; the message names the task.
    """

    id: str
    scorer: Scorer
    prompt: str = ""
    messages: tuple[Message, ...] = ()
    target: Any = None
    system: str | None = None
    max_tokens: int | None = None
    response_schema: Mapping[str, Any] | None = None
    choices: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    reference: Mapping[str, str] | str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "messages", tuple(self.messages))
        object.__setattr__(self, "choices", tuple(self.choices))
        self._check_id()
        self._check_question()
        if not callable(self.scorer):
            raise self.error(
                f"has a scorer that is not callable: {self.scorer!r}",
                "Use one such as agentfarm.evals.exact().",
            )
        if self.max_tokens is not None and self.max_tokens < 1:
            raise self.error(f"has max_tokens={self.max_tokens}", "Use 1 or more.")
        try:
            json.dumps(
                [
                    self.target,
                    self.response_schema,
                    dict(self.metadata),
                    dict(self.files),
                ]
            )
        except (TypeError, ValueError) as error:
            raise self.error(
                f"holds something that is not JSON: {error}",
                "Use text, numbers, lists and mappings in target, response_schema, "
                "metadata and files.",
            ) from None
        if self.files and isinstance(self.reference, str):
            raise self.error(
                "starts from files and has a text as its reference",
                "Give it the files that solve it.",
            )
        if isinstance(self.scorer, TaskCheck):
            self.scorer.check(self)

    def _check_id(self) -> None:
        text: object = self.id  # not checked before now
        if not isinstance(text, str) or not text.strip() or text != text.strip():
            raise EvalError(
                f"A task has the id {text!r}.",
                remedy="Give it a text that neither is blank nor has blanks around it.",
            )
        if not text.isprintable() or len(text) > 200:
            raise EvalError(
                f"The task id {text[:40]!r} is too long or not printable.",
                remedy="Use at most 200 printable characters.",
            )

    def _check_question(self) -> None:
        if bool(self.prompt.strip()) == bool(self.messages):
            state = "both a prompt and messages" if self.messages else "no prompt"
            raise self.error(f"has {state}", "Give it a prompt or messages.")
        if any(not option.strip() for option in self.choices):
            raise self.error("has a blank choice", "Write it out or remove it.")
        if len(self.choices) > len(LETTERS):
            raise self.error(
                f"has {len(self.choices)} choices", f"Use at most {len(LETTERS)}."
            )

    @property
    def targets(self) -> tuple[str, ...]:
        """The acceptable answers as texts; empty where there is no target."""
        if self.target is None:
            return ()
        if isinstance(self.target, Mapping):
            return (json.dumps(dict(self.target), ensure_ascii=False),)
        if isinstance(self.target, Sequence) and not isinstance(self.target, str):
            return tuple(str(item) for item in self.target)
        return (str(self.target),)

    @property
    def letters(self) -> str:
        """The letters of the choices, e.g. ``ABCD``."""
        return LETTERS[: len(self.choices)]

    def conversation(self, system: str | None = None) -> tuple[Message, ...]:
        """The turns to send: the system turn, then the question.

        Args:
            system: The suite's system turn, used where the task has none.
        """
        text = self.system if self.system is not None else system
        head = (Message(role="system", content=text),) if text else ()
        if self.messages:
            return head + self.messages
        lines = [self.prompt]
        lines += [f"{a}) {b}" for a, b in zip(self.letters, self.choices, strict=True)]
        return (*head, Message(role="user", content="\n".join(lines)))

    def error(self, problem: str, remedy: str) -> EvalError:
        """An EvalError about this task, ready to be raised."""
        return EvalError(f"Task {self.id!r} {problem}.", remedy=remedy)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tasks that are run and reported together.

    Attributes:
        name: What people call it.
        tasks: In the order in which they are asked.
        description: One sentence for people.
        system: System turn of every task that has none of its own.
        temperature: Default sampling temperature; 0 takes the likeliest token.
        max_tokens: Longest answer of a task that sets none.
        seed: Default sampling seed; epoch n uses ``seed + n - 1``.
        solver: Works on each task, e.g. with agents; None asks the model once.

    Raises:
        EvalError: A field is malformed, no task is there, or two share an id.
    """

    name: str
    tasks: tuple[Task, ...]
    description: str = ""
    system: str | None = None
    temperature: float = 0.0
    max_tokens: int = 256
    seed: int | None = 0
    solver: Solver | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        if not self.name.strip() or not self.name.isprintable():
            raise EvalError(
                f"A suite has the name {self.name!r}.",
                remedy="Give it a printable one.",
            )
        if not self.tasks:
            raise self._error("has no tasks", "Add at least one.")
        if self.temperature < 0:
            raise self._error(f"has temperature={self.temperature}", "Use 0 or more.")
        if self.max_tokens < 1:
            raise self._error(f"has max_tokens={self.max_tokens}", "Use 1 or more.")
        counts = Counter(task.id for task in self.tasks)
        if double := sorted(task_id for task_id, n in counts.items() if n > 1):
            raise self._error(
                f"uses a task id more than once: {', '.join(double[:5])}",
                "Ids are what samples are joined by; make them unique.",
            )

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def suite_hash(self) -> str:
        """Hash of all that decides questions and scores: 16 hex digits.

        Temperature, seed and solver are left out, since a run's `config` records
        them; so are name, description, metadata and reference.
        """
        content = [
            [
                task.id,
                [[turn.role, turn.content] for turn in task.conversation(self.system)],
                task.target,
                list(task.choices),
                task.max_tokens or self.max_tokens,
                task.response_schema,
                scorer_spec(task.scorer),
                # Only where there are any: runs of other suites keep their hash.
                *([dict(task.files)] if task.files else []),
            ]
            for task in self.tasks
        ]
        text = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _error(self, problem: str, remedy: str) -> EvalError:
        return EvalError(f"Suite {self.name!r} {problem}.", remedy=remedy)
