"""`agentfarm doctor`: what is there, what is missing, what to install."""

from __future__ import annotations

import ctypes.util
import importlib.util
import platform
import shutil
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from agentfarm.cli._console import JsonFlag, print_json, run_async, stdout, table
from agentfarm.cli._doctor_sandbox import sandbox_findings
from agentfarm.cli._finding import Finding, State
from agentfarm.errors import AgentFarmError

if TYPE_CHECKING:
    from agentfarm.config import Settings
    from agentfarm.llm import RegisteredModel

OLLAMA_URL = "http://127.0.0.1:11434"


def doctor(as_json: JsonFlag = False) -> None:
    """Check this installation; ends with status 1 if an essential part is missing."""
    findings = run_async(examine)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        _print_table(findings)
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


async def examine() -> list[Finding]:
    """Look at every part; nothing is changed and nothing beyond this host is asked."""
    from agentfarm.config import load_settings

    settings = load_settings()
    found = [_python(), _home(settings), _store(settings), *_embedded(settings)]
    found += await _servers(settings)
    found += await sandbox_findings(settings)
    found.append(await _gpu())
    found += [
        _extra("JupyterLab", "jupyterlab", "lab"),
        _extra("Voila", "voila", "dashboards"),
        _extra("RAG", "chromadb", "rag"),
        _extra("MCP", "mcp", "mcp"),
        _extra("Dask", "distributed", "distributed"),
    ]
    return found


def _python() -> Finding:
    return Finding(part="Python", state="ok", detail=platform.python_version())


def _home(settings: Settings) -> Finding:
    home = settings.home
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = home / ".doctor"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return Finding(
            part="AGENTFARM_HOME",
            state="missing",
            detail=f"{home} cannot be written: {error.strerror}",
            remedy="Set AGENTFARM_HOME to a folder that you may write.",
        )
    free_gib = shutil.disk_usage(home).free / 2**30
    return Finding(
        part="AGENTFARM_HOME", state="ok", detail=f"{home}, {free_gib:.0f} GiB free"
    )


def _store(settings: Settings) -> Finding:
    from agentfarm.store import Store

    file = settings.home / "agentfarm.db"
    if settings.database_url is None and not file.exists():
        return Finding(part="Store", state="ok", detail="made at the first run")
    try:
        with Store.open(settings.store_url, read_only=True) as store:
            count = len(store.runs())
            return Finding(
                part="Store", state="ok", detail=f"{store.url}: {count} runs"
            )
    except AgentFarmError as error:
        return Finding(
            part="Store",
            state="missing",
            detail=error.message,
            remedy=error.remedy or "",
        )


def _llama_cpp(otherwise: State) -> Finding:
    if importlib.util.find_spec("xllamacpp") is None:
        return Finding(
            part="llama.cpp",
            state=otherwise,
            detail="xllamacpp is not installed",
            remedy="pip install 'agentfarm[local]'",
        )
    if sys.platform == "linux" and ctypes.util.find_library("gomp") is None:
        return Finding(
            part="llama.cpp",
            state=otherwise,
            detail="xllamacpp is installed, but not libgomp.so.1, which it needs",
            remedy="apt-get install libgomp1",
        )
    return Finding(part="llama.cpp", state="ok", detail="xllamacpp is installed")


def _embedded(settings: Settings) -> list[Finding]:
    from agentfarm.llm import find_embedded_model

    server = _llama_cpp(
        "missing" if settings.default_model == "embedded" else "optional"
    )
    try:
        path = find_embedded_model(settings.embedded, settings.home)
    except AgentFarmError as error:
        return [
            server,
            Finding(
                part="Embedded model",
                state="missing",
                detail=error.message,
                remedy=error.remedy or "",
            ),
        ]
    if path is None:
        model = Finding(
            part="Embedded model",
            state="optional",
            detail="not here yet; fetched at the first use",
            remedy="agentfarm models pull smollm2",
        )
    else:
        size_mib = path.stat().st_size / 2**20
        model = Finding(
            part="Embedded model", state="ok", detail=f"{path} ({size_mib:.0f} MiB)"
        )
    return [server, model]


async def _servers(settings: Settings) -> list[Finding]:
    from agentfarm.llm import OllamaProvider, build_router

    provider = OllamaProvider(OLLAMA_URL)
    try:
        ollama = await provider.health()
    finally:
        await provider.aclose()
    found = [
        Finding(
            part="Ollama",
            state="ok" if ollama.ok else "optional",
            detail=ollama.detail,
            remedy=""
            if ollama.ok
            else "Install Ollama, or register another server: agentfarm models add",
        )
    ]
    router = build_router(settings)
    try:
        found += [
            await _registered(model, settings)
            for model in router.models
            if model.provider.kind != "embedded"
        ]
    finally:
        await router.aclose()
    return found


async def _registered(model: RegisteredModel, settings: Settings) -> Finding:
    health = await model.provider.health()
    needed = model.name == settings.default_model
    host, detail = model.provider.host, health.detail
    if model.provider.kind == "replay":
        remedy = "Record the cassette, or correct its path."
    else:
        remedy = "Start its server, or take it out: agentfarm models remove"
    return Finding(
        part=f"Model {model.name}",
        state="ok" if health.ok else "missing" if needed else "optional",
        detail=detail if host in detail else f"{host}: {detail}",
        remedy="" if health.ok else remedy,
    )


async def _gpu() -> Finding:
    from agentfarm.monitoring import GPUMonitor

    with GPUMonitor() as monitor:
        snapshot = await monitor.snapshot()
    if not snapshot.gpus:
        asked = ", ".join(source for source, _ in snapshot.tried)
        return Finding(
            part="GPU",
            state="optional",
            detail=f"{snapshot.reason}; asked {asked}",
            remedy="Models run on the processor, slowly. Why: agentfarm gpu",
        )
    cards = [gpu for gpu in snapshot.gpus if gpu.parent is None]
    works = any(gpu.error is None for gpu in cards)
    return Finding(
        part="GPU",
        state="ok" if works else "warning",
        detail=", ".join(
            f"{gpu.name or gpu.uuid} ({gpu.error or gpu.source})" for gpu in cards
        ),
        remedy="" if works else "Look at the kernel's log: dmesg",
    )


def _extra(part: str, module: str, extra: str) -> Finding:
    if importlib.util.find_spec(module):
        return Finding(part=part, state="ok", detail=f"{module} is installed")
    return Finding(
        part=part,
        state="optional",
        detail=f"{module} is not installed",
        remedy=f"pip install 'agentfarm[{extra}]'",
    )


def _print_table(findings: list[Finding]) -> None:
    from rich.markup import escape

    marks = {
        "ok": "[green]✓ ok[/]",
        "missing": "[red]✗ missing[/]",
        "optional": "[yellow]- optional[/]",
        "warning": "[yellow]! warning[/]",
    }
    made = table("AgentFarm on this machine", "part", "state", "found", "what to do")
    for finding in findings:
        made.add_row(
            finding.part,
            marks[finding.state],
            escape(finding.detail),
            escape(finding.remedy),
        )
    stdout().print(made)
