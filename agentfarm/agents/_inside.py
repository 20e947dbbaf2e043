"""Checks of a workspace's Python from inside the sandbox; its source goes in alone.

``python3 -I _inside.py syntax`` and ``imports SECONDS`` print one JSON object about
the files below the current folder. Isolated, Python imports nothing of the work by
itself, so that a module of the work may have any name.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

MODULE_S = 15.0
AT_ONCE = 4
MOST = 100
MESSAGE_CHARS = 500
OURS = ".agentfarm-"

Found = dict[str, object]


def main() -> None:
    """Do what the command line says."""
    action, *arguments = sys.argv[1:]
    if action == "module":
        import_module(*arguments)
    found = syntax() if action == "syntax" else imports(float(arguments[0]))
    sys.stdout.write(json.dumps(found))


def sources() -> list[Path]:
    """The Python files, relative to the current folder."""
    return sorted(
        path
        for path in Path().rglob("*.py")
        if path.is_file() and not path.name.startswith(OURS)
    )


def syntax() -> Found:
    """Compile every file."""
    import warnings

    warnings.simplefilter("ignore")
    files = sources()
    findings = []
    for file in files:
        try:
            compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
        except Exception as error:  # noqa: BLE001 - whatever the compiler says
            findings.append(failure(error, str(file)))
    return {"files": len(files), "findings": findings[:MOST], "all": len(findings)}


def imports(budget_s: float) -> Found:
    """Import every module in a process of its own, within so many seconds."""
    import tempfile
    from concurrent.futures import ThreadPoolExecutor

    modules = [found for found in map(module_of, sources()) if found]
    deadline = time.monotonic() + budget_s
    each_s = min(MODULE_S, budget_s / AT_ONCE)
    with tempfile.TemporaryDirectory() as reports, ThreadPoolExecutor(AT_ONCE) as pool:

        def apart(place: int) -> Found:
            left_s = min(each_s, deadline - time.monotonic())
            return import_apart(modules[place], Path(reports, str(place)), left_s)

        outcomes = list(pool.map(apart, range(len(modules))))
    of_kind: dict[object, list[Found]] = {"ok": [], "note": [], "failed": []}
    for outcome in outcomes:
        of_kind[outcome.pop("kind")].append(outcome)
    return {
        "modules": len(modules),
        "findings": of_kind["failed"][:MOST],
        "all": len(of_kind["failed"]),
        "notes": of_kind["note"][:MOST],
    }


def module_of(file: Path) -> tuple[str, str, str] | None:
    """File, module name and the folder to import it from; None for no module.

    Tests are pytest's to import, and a ``__main__`` is there to be run.
    """
    is_test = file.stem.startswith("test_") or file.stem.endswith("_test")
    if is_test or file.stem in {"conftest", "setup", "__main__"} or "." in file.stem:
        return None
    parts = [] if file.stem == "__init__" else [file.stem]
    folder = file.parent
    while folder.name and (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    if not parts or parts[0] in {"test", "tests"}:
        return None
    return str(file), ".".join(parts), str(folder.absolute())


def import_apart(module: tuple[str, str, str], report: Path, left_s: float) -> Found:
    """Import one module in a child, and say how that ended."""
    import signal
    import subprocess

    file = module[0]
    if left_s <= 0:
        return {"kind": "note", "file": file, "message": "not imported: no time left"}
    command = [sys.executable, "-I", __file__, "module", *module, str(report)]
    child = subprocess.Popen(  # noqa: S603 - in the sandbox, which this is for
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        status = child.wait(left_s)
    except subprocess.TimeoutExpired:
        message = f"still running {left_s:.0f} s after its import began"
        return {"kind": "note", "file": file, "message": message}
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    try:
        return dict(json.loads(report.read_text()))
    except (OSError, ValueError):
        message = f"its import ended the process, with status {status}"
        return {"kind": "failed", "file": file, "line": None, "message": message}


def import_module(file: str, name: str, root: str, report: str) -> None:
    """Import a module into this process, report, and end."""
    here = str(Path.cwd())
    sys.path[:0] = dict.fromkeys([root, here, str(Path(here, "src"))])
    sys.argv = [file]
    found: Found = {"kind": "ok"}
    try:
        module = importlib.import_module(name)
        if not str(getattr(module, "__file__", "")).startswith(here):
            message = f"Python has a module {name} of its own, which was imported"
            found = {"kind": "note", "file": file, "line": None, "message": message}
    except (SystemExit, EOFError) as error:
        # A script, which does its work at import: no reason to fail it.
        found = {"kind": "note", **failure(error, file)}
    except BaseException as error:  # noqa: BLE001 - whatever the work raises
        found = {"kind": "failed", **failure(error, file)}
    Path(report).write_text(json.dumps(found))
    os._exit(0)  # whatever threads the module has started


def failure(error: BaseException, file: str) -> Found:
    """What went wrong, and where in the work."""
    if isinstance(error, SyntaxError):
        place = (error.filename or file, error.lineno)
        message = f"{type(error).__name__}: {error.msg}"
        if error.text and error.text.strip():
            message += f" in: {error.text.strip()[:200]}"
    else:
        place = innermost(error, file)
        message = described(error)
    return {
        "file": os.path.relpath(place[0]),
        "line": place[1],
        "message": message[:MESSAGE_CHARS],
    }


def innermost(error: BaseException, file: str) -> tuple[str, int | None]:
    """The last file of the work in the traceback, and the line there."""
    place: tuple[str, int | None] = (file, None)
    trace = error.__traceback__
    here = f"{Path.cwd()}{os.sep}"
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name.startswith(here) and name != __file__:
            place = (name, trace.tb_lineno)
        trace = trace.tb_next
    return place


def described(error: BaseException) -> str:
    """Type and text of an error that the work may have made itself."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the work's own method
        text = "(its text cannot be shown)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


if __name__ == "__main__":
    main()
