"""Find suites: built in, in a file, or in Python code."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import json
import pkgutil
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentfarm.errors import EvalError
from agentfarm.evals._code_benchmarks import code_benchmark
from agentfarm.evals._scorers import make_scorer
from agentfarm.evals._suite import Suite, Task
from agentfarm.llm import Message

if TYPE_CHECKING:
    from types import ModuleType

_SUFFIXES = (".toml", ".json", ".jsonl")
_SUITE_KEYS = (
    "name",
    "description",
    "system",
    "temperature",
    "max_tokens",
    "seed",
    "scorer",
    "tasks",
)
_TASK_KEYS = (
    "id",
    "prompt",
    "messages",
    "target",
    "scorer",
    "system",
    "max_tokens",
    "response_schema",
    "choices",
    "metadata",
)


def suite_names() -> list[str]:
    """The names of the built-in suites."""
    package = importlib.import_module("agentfarm.evals.suites")
    found = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return sorted(name for name in found if not name.startswith("_"))


def load_suite(name_or_path: str | Path) -> Suite:
    """Load a suite by what people write on a command line.

    Args:
        name_or_path: A built-in suite's name; a ``.toml``, ``.json`` or ``.jsonl``
            file; HumanEval's or MBPP's own ``.jsonl`` or ``.jsonl.gz``; or
            ``module:attribute`` (or ``file.py:attribute``), a Suite or a function
            that returns one. The last runs that code.

    Raises:
        EvalError: It cannot be found or is malformed; the message names the file,
            and the line or task.
    """
    text = str(name_or_path)
    path = Path(text).expanduser()
    if path.suffix in _SUFFIXES:
        return _from_file(path)
    if path.name.endswith(".jsonl.gz"):
        return _from_packed(path)
    if ":" in text:
        return _from_code(text)
    if text in suite_names():
        return _as_suite(
            importlib.import_module(f"agentfarm.evals.suites.{text}").SUITE, text
        )
    near = difflib.get_close_matches(text, suite_names(), n=1)
    raise EvalError(
        f"There is no suite {text!r}.",
        remedy=(f"Did you mean {near[0]}? " if near else "")
        + f"Built in: {', '.join(suite_names())}. Or give a .toml, .json or .jsonl "
        "file, or module:attribute.",
    )


def _from_packed(path: Path) -> Suite:
    if suite := code_benchmark(path):
        return suite
    raise EvalError(
        f"{path} holds neither HumanEval's tasks nor MBPP's.",
        remedy="Unpack it, if it is a suite of your own.",
    )


def _from_code(text: str) -> Suite:
    place, _, attribute = text.rpartition(":")
    try:
        module = _import(place)
    except (ImportError, OSError, SyntaxError) as error:
        raise EvalError(
            f"{place} of {text!r} cannot be imported: {error}.",
            remedy="Check the name, or give the path of the .py file.",
        ) from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise EvalError(
                f"{place} has no attribute {attribute!r}.",
                remedy="Name a Suite, or a function that returns one.",
            )
        found = getattr(found, part)
    is_factory = callable(found) and not isinstance(found, Suite)
    return _as_suite(found() if is_factory else found, text)


def _import(place: str) -> ModuleType:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(place).expanduser()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _as_suite(value: object, text: str) -> Suite:
    if isinstance(value, Suite):
        return value
    raise EvalError(
        f"{text!r} is a {type(value).__name__} and no Suite.",
        remedy="Name a Suite, or a function that returns one.",
    )


def _from_file(path: Path) -> Suite:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise EvalError(
            f"The suite file {path} cannot be read: {error.strerror}.",
            remedy="Check the path.",
        ) from error
    except UnicodeDecodeError as error:
        raise EvalError(
            f"The suite file {path} is not UTF-8: {error.reason}.",
            remedy="Save it as UTF-8.",
        ) from error
    if path.suffix == ".jsonl":
        if suite := code_benchmark(path, next(iter(text.splitlines()), "")):
            return suite
        tasks = [
            (f"{path}:{number}", _parse_json(line, f"{path}:{number}"))
            for number, line in enumerate(text.splitlines(), start=1)
            if line.strip()
        ]
        return _suite({"name": path.stem}, tasks, str(path))
    data = (
        _parse_toml(text, path) if path.suffix == ".toml" else _parse_json(text, path)
    )
    if not isinstance(data, dict) or not isinstance(data.get("tasks"), list):
        raise EvalError(
            f"{path} holds no list of tasks.",
            remedy="Write [[tasks]] tables in TOML, or a `tasks` list in JSON.",
        )
    places = _task_places(text, path, len(data["tasks"]))
    return _suite(data, list(zip(places, data["tasks"], strict=True)), str(path))


def _parse_toml(text: str, path: Path) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EvalError(
            f"{path} is not valid TOML: {error}.", remedy="Mend it."
        ) from None


def _parse_json(text: str, place: str | Path) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno} " if "\n" in text else ""
        raise EvalError(
            f"{place} is not valid JSON: {error.msg}, {line}column {error.colno}.",
            remedy="Mend it.",
        ) from None


def _task_places(text: str, path: Path, count: int) -> list[str]:
    """Where each task stands, for error messages."""
    heads = re.compile(r"^[ \t]*\[\[[ \t]*tasks[ \t]*\]\]", re.MULTILINE)
    lines = [text.count("\n", 0, match.start()) + 1 for match in heads.finditer(text)]
    if path.suffix == ".toml" and len(lines) == count:
        return [f"{path}:{line}" for line in lines]
    return [f"{path}, task {number}" for number in range(1, count + 1)]


def _suite(data: Mapping[str, Any], tasks: list[tuple[str, Any]], place: str) -> Suite:
    _check_keys(data, _SUITE_KEYS, place)
    _check_types(
        data,
        {
            "name": str,
            "description": str,
            "system": str,
            "temperature": (int, float),
            "max_tokens": int,
            "seed": int,
        },
        place,
    )
    fields = {key: data[key] for key in _SUITE_KEYS if key in data}
    scorer = fields.pop("scorer", None)
    fields["tasks"] = tuple(_task(item, scorer, where) for where, item in tasks)
    fields.setdefault("name", Path(place).stem)
    with _At(place):
        return Suite(**fields)


def _task(data: Any, scorer: Any, place: str) -> Task:
    if not isinstance(data, Mapping):
        raise EvalError(
            f"{place} is no table of fields.", remedy="Write key and value."
        )
    _check_keys(data, _TASK_KEYS, place)
    _check_types(
        data,
        {
            "id": str,
            "prompt": str,
            "messages": list,
            "system": str,
            "max_tokens": int,
            "response_schema": dict,
            "choices": list,
            "metadata": dict,
        },
        place,
    )
    fields = {key: data[key] for key in _TASK_KEYS if key in data}
    spec = fields.pop("scorer", scorer)
    for key, value in (("id", fields.get("id")), ("scorer", spec)):
        if value is None:
            raise EvalError(f"{place} has no {key}.", remedy=f"Add `{key}`.")
    with _At(place):
        if "messages" in fields:
            fields["messages"] = tuple(_message(item) for item in fields["messages"])
        if any(not isinstance(option, str) for option in fields.get("choices", ())):
            raise EvalError("A choice is no text.", remedy="Put it in quotes.")
        return Task(scorer=make_scorer(spec), **fields)


def _message(data: Any) -> Message:
    if (
        not isinstance(data, Mapping)
        or set(data) != {"role", "content"}
        or data["role"] not in {"system", "user", "assistant"}
        or not isinstance(data["content"], str)
    ):
        raise EvalError(
            f"{data!r} is no message.",
            remedy="Write role (system, user or assistant) and content.",
        )
    return Message(role=data["role"], content=data["content"])


def _check_keys(data: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise EvalError(
                f"{place} has an unknown field {key!r}.",
                remedy=f"Did you mean {near[0]}?"
                if near
                else f"Use {', '.join(known)}.",
            )


def _check_types(data: Mapping[str, Any], types: Mapping[str, Any], place: str) -> None:
    for key, wanted in types.items():
        value = data.get(key)
        if value is None:
            continue
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise EvalError(
                f"{place} has {key} = {value!r}.",
                remedy=f"Write a {_TYPE_NAMES.get(wanted, 'number')}.",
            )


_TYPE_NAMES = {str: "text", int: "whole number", list: "list", dict: "table"}


class _At:
    """Puts the place in front of an EvalError that is raised inside."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: object, error: BaseException | None, trace: object
    ) -> None:
        if isinstance(error, EvalError):
            raise EvalError(
                f"{self._place}: {error.message}", remedy=error.remedy
            ) from None
