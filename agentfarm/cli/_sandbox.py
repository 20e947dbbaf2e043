"""`agentfarm sandbox`: where code that a model wrote runs, and what holds it."""

from __future__ import annotations

import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agentfarm.cli._console import (
    JsonFlag,
    print_json,
    reported_errors,
    run_async,
    stderr,
    stdout,
    table,
)

if TYPE_CHECKING:
    from agentfarm.cli._sandbox_state import DockerState, SandboxState
    from agentfarm.tools.sandbox import SandboxResult
    from agentfarm.tools.sandbox._build import BuiltImage
    from agentfarm.tools.sandbox._image import ImageState

app = typer.Typer(
    help="Run code that a model wrote where it can reach nothing.",
    no_args_is_help=True,
)

MIB = 2**20
TIMED_OUT = 124  # what timeout(1) ends with


@app.command("build")
def build(
    method: Annotated[
        Literal["auto", "registry", "debian"],
        typer.Option(
            help="registry: on an official Python image. debian: from Debian "
            "packages, where no registry can be reached."
        ),
    ] = "auto",
    base: Annotated[
        str | None,
        typer.Option(help="Another base image with python3, for the registry way."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Build it also if it is up to date.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Build the image that sandboxes are made of."""
    with reported_errors():
        from agentfarm.config import load_settings
        from agentfarm.containers import Engine
        from agentfarm.tools.sandbox import build_image, check_image

        with Engine(load_settings().docker_host) as engine:
            state = check_image(engine)
            if state.present and not state.stale and not force:
                _show_up_to_date(state, as_json=as_json)
                return
            built = build_image(
                engine,
                method=method,
                **({"base": base} if base else {}),
                on_line=lambda line: stderr().print(
                    line, style="dim", markup=False, highlight=False
                ),
            )
        _show_built(built, as_json=as_json)


def _show_up_to_date(state: ImageState, *, as_json: bool) -> None:
    if as_json:
        print_json({"built": False, **_image_row(state)})
    else:
        stdout().print(
            f"{state.image} is up to date: {_image_text(state)}.",
            highlight=False,
            soft_wrap=True,
        )


def _show_built(built: BuiltImage, *, as_json: bool) -> None:
    if as_json:
        print_json({"built": True, **asdict(built)})
        return
    made = table("Built", "image", "from", "Python", "MiB", "s", right=("MiB", "s"))
    made.add_row(
        built.tag,
        {"registry": "a registry", "debian": "Debian packages"}[built.method],
        built.python,
        f"{built.size_bytes / MIB:.0f}",
        f"{built.duration_s:.1f}",
    )
    stdout().print(made)


@app.command("reap")
def reap(
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Also what running AgentFarm processes use: their runs fail."
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove containers, volumes and networks that killed processes left behind."""
    with reported_errors():
        from agentfarm.config import load_settings
        from agentfarm.containers import Engine
        from agentfarm.containers import reap as reap_orphans

        with Engine(load_settings().docker_host) as engine:
            reaped = reap_orphans(engine, everything=everything)
    if as_json:
        print_json(asdict(reaped))
        return
    counts = ", ".join(f"{name} {count}" for name, count in asdict(reaped).items())
    stdout().print(
        f"Removed: {counts}." if reaped.total else "There was nothing to remove.",
        highlight=False,
    )


@app.command("status")
def status(as_json: JsonFlag = False) -> None:
    """Show which sandbox a run would get, its limits, and what is running."""

    async def main() -> SandboxState:
        from agentfarm.cli._sandbox_state import look
        from agentfarm.config import load_settings

        return await look(load_settings())

    state = run_async(main)
    if as_json:
        print_json(_status_json(state))
    else:
        _show_status(state)


def _status_json(state: SandboxState) -> dict[str, Any]:
    docker, bubblewrap = state.docker, state.bubblewrap
    return {
        "wanted": state.wanted,
        "backend": state.backend,
        "docker": {
            "url": docker.url,
            "error": str(docker.error) if docker.error else None,
            "engine": asdict(docker.info) if docker.info else None,
            "weaknesses": [asdict(item) for item in docker.weaknesses],
            "mentions": list(docker.mentions),
            "image": _image_row(docker.image) if docker.image else None,
            "owned": [asdict(item) for item in docker.owned],
        },
        "bubblewrap": {
            "version": bubblewrap.version,
            "error": str(bubblewrap.error) if bubblewrap.error else None,
            "unenforced": list(bubblewrap.unenforced),
        },
        "timeout_s": state.timeout_s,
        "limits": asdict(state.limits),
    }


def _show_status(state: SandboxState) -> None:
    from rich.markup import escape

    bubblewrap = state.bubblewrap
    made = table("Sandbox", "part", "found")
    made.add_row("Backend", escape(_backend_text(state)))
    made.add_row("Docker", escape(_docker_text(state.docker)))
    for weakness in state.docker.weaknesses:
        made.add_row("", escape(f"! {weakness.detail}"))
    if image := state.docker.image:
        made.add_row("Image", escape(f"{image.image}: {_image_text(image)}"))
    found = bubblewrap.error.message if bubblewrap.error else bubblewrap.version
    made.add_row("bubblewrap", escape(found or ""))
    for limit in bubblewrap.unenforced:
        made.add_row("", escape(f"! not enforced: {limit}"))
    stdout().print(made)
    _show_limits(state)
    _show_owned(state.docker)


def _show_limits(state: SandboxState) -> None:
    made = table("Limits of one run", "limit", "value", right=("value",))
    made.add_row("timeout", f"{state.timeout_s:g} s")
    for item in fields(state.limits):
        value = getattr(state.limits, item.name)
        if item.name.endswith("_bytes"):
            made.add_row(_words(item.name.removesuffix("_bytes")), _size(value))
        else:
            made.add_row(_words(item.name), f"{value:g}")
    stdout().print()
    stdout().print(made)
    stdout().print("Always: no network, read-only root, no capabilities, no root user.")


def _show_owned(docker: DockerState) -> None:
    if not docker.owned:
        return
    made = table("On the engine", "type", "for", "name", "owner")
    owners = {True: "running", False: "dead: agentfarm sandbox reap", None: "elsewhere"}
    for item in docker.owned:
        made.add_row(item.type, item.kind, item.name, owners[item.owner_alive])
    stdout().print()
    stdout().print(made)


def _backend_text(state: SandboxState) -> str:
    if state.backend:
        return f"{state.backend} (settings: {state.wanted})"
    return f"none: code of a model is refused (settings: {state.wanted})"


def _docker_text(docker: DockerState) -> str:
    if docker.info is None:
        return docker.error.message if docker.error else docker.url
    info = docker.info
    parts = [
        f"{info.product} {info.version} at {info.url}",
        f"runc {info.runc_version}" if info.runc_version else "",
        f"cgroup v{info.cgroup_version}" if info.cgroup_version else "",
        *docker.mentions,
    ]
    return ", ".join(part for part in parts if part)


def _image_text(state: ImageState) -> str:
    parts = [
        state.reason,
        f"Python {state.python}" if state.python else "",
        _size(state.size_bytes) if state.size_bytes else "",
        f"built {state.made_at:%Y-%m-%d}" if state.made_at else "",
    ]
    return ", ".join(part for part in parts if part)


def _image_row(state: ImageState) -> dict[str, Any]:
    made_at = state.made_at.isoformat() if state.made_at else None
    return {**asdict(state), "made_at": made_at}


def _words(name: str) -> str:
    return name.replace("_", " ")


def _size(count: int) -> str:
    return f"{count / MIB:.0f} MiB" if count >= MIB else f"{count / 1024:.0f} KiB"


# What follows the first word is the command's own: `sandbox run ls -l`.
@app.command("run", context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[
        list[str] | None, typer.Argument(help="Program and its arguments.")
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="Python source to run instead of a command.")
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(help="File to lay into /work: PATH or NAME=PATH; repeatable."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds; 60 if left out.")
    ] = None,
    memory: Annotated[int | None, typer.Option(min=8, help="MiB.")] = None,
    backend: Annotated[
        Literal["auto", "docker", "bubblewrap"] | None,
        typer.Option(help="What the settings say, if left out."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files that the run makes.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run one command in a sandbox of its own; ends with its exit status.

    The exit status is 124 after a timeout.
    """
    if (python is None) == (not command):
        raise typer.BadParameter("Give either a command or --python.")
    files = dict(map(_named, file or ()))
    result = run_async(
        lambda: _run(
            {"command": command or None, "python": python, "files": files or None},
            timeout_s=timeout,
            memory_bytes=memory * MIB if memory else None,
            backend=backend,
        )
    )
    with reported_errors():
        if out is not None:
            from agentfarm.tools.sandbox import save

            save(result.files, out)
        _show_result(result, as_json=as_json)
        _explain(result, out)
    raise typer.Exit(TIMED_OUT if result.timed_out else result.exit_code or 0)


def _named(text: str) -> tuple[str, Path]:
    name, is_named, path = text.partition("=")
    if is_named and not Path(text).exists():
        return name, Path(path)
    return Path(text).name, Path(text)


async def _run(
    job: dict[str, Any],
    *,
    timeout_s: float | None,
    memory_bytes: int | None,
    backend: Literal["auto", "docker", "bubblewrap"] | None,
) -> SandboxResult:
    from agentfarm.config import load_settings
    from agentfarm.tools.sandbox import limits_of, open_sandbox

    settings = load_settings()
    limits = limits_of(settings)
    if memory_bytes is not None:
        limits = replace(limits, memory_bytes=memory_bytes)
    # One run needs no pool.
    chosen = settings.sandbox.model_copy(update={"pool": 0})
    settings = settings.model_copy(update={"sandbox": chosen})
    async with await open_sandbox(backend, settings=settings) as sandbox:
        return await sandbox.run(**job, timeout_s=timeout_s, limits=limits)


def _show_result(result: SandboxResult, *, as_json: bool) -> None:
    if as_json:
        print_json(result.to_dict())
        return
    sys.stdout.write(result.stdout)
    sys.stderr.write(result.stderr)


def _explain(result: SandboxResult, out: Path | None) -> None:
    """Say on stderr what the output does not show."""
    said = []
    if result.timed_out:
        said.append(f"Ended by the timeout after {result.duration_s:.1f} s.")
    if result.oom_killed:
        said.append("The kernel killed a process for memory; --memory raises it.")
    if result.truncated:
        said.append("Output was cut; sandbox.limits.output_bytes raises it.")
    if result.files and out is None:
        said.append(f"Files made: {', '.join(result.files)}; --out DIR keeps them.")
    said += [f"Left out: {name}: {why}" for name, why in result.omitted.items()]
    said += [f"Not enforced here: {limit}" for limit in result.unenforced]
    for line in said:
        stderr().print(line, markup=False, highlight=False, soft_wrap=True)
