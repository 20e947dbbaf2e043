"""Builds the sandbox image: from a registry's Python, or from Debian packages."""

from __future__ import annotations

import io
import json
import os
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Literal

from agentfarm.containers import Engine, labels
from agentfarm.errors import SandboxError, SandboxUnavailable
from agentfarm.tools.sandbox._image import (
    BUILD_COMMAND,
    inspect_image,
    listed_images,
    our_images,
)
from agentfarm.tools.sandbox._recipe import (
    BASE_IMAGE,
    BUILD_LABEL,
    SANDBOX_IMAGE,
    VERSION_VARIABLE,
    dockerfile,
    image_changes,
    image_labels,
    mmdebstrap_command,
)

Method = Literal["auto", "registry", "debian"]
Say = Callable[[str], None]

PACKAGES_S = 900.0
STEP_S = 600  # the longest silence of one step of a Dockerfile
PROOF_S = 60.0
SHOWN = ("I: running apt", "I: downloading", "I: extracting", "I: creating", "W:", "E:")
PROOF = "import mypy, platform, pyflakes, pytest; print(platform.python_version())"


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltImage:
    """A freshly built image.

    Attributes:
        id: The engine's identifier of it.
        tag: Its name.
        method: ``registry`` or ``debian``.
        size_bytes: Of all its layers.
        python: Version of its Python.
        duration_s: Seconds that the build took.
    """

    id: str
    tag: str
    method: str
    size_bytes: int
    python: str
    duration_s: float


def build_image(
    engine: Engine,
    *,
    method: Method = "auto",
    base: str = BASE_IMAGE,
    tag: str = SANDBOX_IMAGE,
    on_line: Say | None = None,
) -> BuiltImage:
    """Build the sandbox image, and remove the ones of ours that it replaces.

    Args:
        engine: Where.
        method: ``registry`` builds the Dockerfile on an official Python image;
            ``debian`` takes Debian packages and needs no registry; ``auto`` takes
            the first where its base image is here or can be pulled.
        base: Image to build on, for ``registry``: one with python3, and pip or
            all of pytest, pyflakes and mypy.
        tag: Name of the image, and version.
        on_line: Called with each line of progress.

    Raises:
        SandboxUnavailable: There is no engine, or no way to build.
        SandboxError: The build failed; nothing of it is left.
    """
    say = on_line or (lambda _line: None)
    start = time.monotonic()
    replaced = [item["Id"] for item in our_images(engine, tag.partition(":")[0])]
    method = _choose(engine, base, say) if method == "auto" else method
    if method == "registry":
        image_id = _from_registry(engine, base, say)
    else:
        image_id = _from_packages(engine, say)
    try:
        python = _prove(engine, image_id)
        repository, _, name = tag.partition(":")
        with engine.calls(f"name the image {tag}") as api:
            api.tag(image_id, repository, name or None)
    except BaseException:
        _remove(engine, image_id)
        raise
    for other in replaced:
        if other != image_id:
            _remove(engine, other)
    found = inspect_image(engine, image_id) or {}
    return BuiltImage(
        id=image_id,
        tag=tag,
        method=method,
        size_bytes=found.get("Size", 0),
        python=python,
        duration_s=time.monotonic() - start,
    )


def _choose(engine: Engine, base: str, say: Say) -> Literal["registry", "debian"]:
    if inspect_image(engine, base) is not None:
        return "registry"
    try:
        _pull(engine, base, say)
    except SandboxError as error:
        say(error.message)
        refused = error
    else:
        return "registry"
    try:
        mmdebstrap_command(as_root=_is_root())
    except SandboxUnavailable as error:
        raise SandboxUnavailable(
            f"The sandbox image cannot be built. {refused.message} {error.message}",
            remedy=f"Make `docker pull {base}` work. Or: {error.remedy}",
        ) from error
    say("Building it from Debian packages instead.")
    return "debian"


def _pull(engine: Engine, base: str, say: Say) -> None:
    """Pull the base image; the engine's timeout bounds each silence."""
    say(f"Pulling {base} …")
    with engine.calls(f"pull {base}") as api:
        lines = api.pull(base, stream=True, decode=True)
        _follow(lines, say, f"{base} cannot be pulled")


def _from_registry(engine: Engine, base: str, say: Say) -> str:
    """Build the Dockerfile; a failed build's layers go by the label they carry."""
    token = secrets.token_hex(8)
    if inspect_image(engine, base) is None:
        _pull(engine, base, say)
    try:
        with engine.calls("build the sandbox image") as api:
            lines = api.build(
                fileobj=io.BytesIO(dockerfile()),
                buildargs={"BASE": base, "BUILD": token},
                labels=image_labels(),
                rm=True,
                forcerm=True,
                decode=True,
                timeout=STEP_S,
            )
            return _follow(lines, say, "The sandbox image cannot be built")
    except BaseException:
        for item in listed_images(engine, f"{BUILD_LABEL}={token}"):
            _remove(engine, item["Id"])
        raise


def _follow(lines: Iterable[dict[str, Any]], say: Say, failure: str) -> str:
    """Show a build's or pull's messages, and return the image that they name."""
    image_id = ""
    for line in lines:
        if "error" in line:
            raise SandboxError(
                f"{failure}: {str(line['error']).strip()}",
                remedy=f"{BUILD_COMMAND} --method debian",
            )
        image_id = (line.get("aux") or {}).get("ID", image_id)
        text = str(line.get("stream") or line.get("status") or "").strip()
        if text and not line.get("progressDetail"):
            say(text)
    return image_id


def _from_packages(engine: Engine, say: Say) -> str:
    command = mmdebstrap_command(as_root=_is_root())
    say("Fetching and unpacking Debian packages …")
    # Without a name, so that no kill can leave it behind.
    with tempfile.TemporaryFile() as archive:
        python_version = _run(command, archive, say)
        archive.seek(0)
        say("Importing them as an image …")
        with (
            Engine(engine.url, timeout_s=STEP_S) as patient,
            patient.calls("import the sandbox image") as api,
        ):
            said = api.import_image(src=archive, changes=image_changes(python_version))
    last = json.loads(str(said).strip().splitlines()[-1])
    if "error" in last:
        raise SandboxError(f"The engine did not import the image: {last['error']}")
    return str(last["status"])


def _run(command: list[str], output: IO[bytes], say: Say) -> str:
    """Run mmdebstrap, which removes its own files also when told to end.

    Returns:
        The version of Python that it unpacked.
    """
    last = python_version = ""
    with _started(command, output) as process:
        for line in process.stderr or ():
            last = line.strip() or last
            if line.startswith(f"{VERSION_VARIABLE}="):
                python_version = line.partition("=")[2].strip()
            if line.startswith(SHOWN):
                say(line[3:].strip())
    if process.returncode:
        raise SandboxError(
            f"mmdebstrap ended with status {process.returncode}: {last}",
            remedy="See that `apt-get update` works, then build again.",
        )
    return python_version


@contextmanager
def _started(command: list[str], output: IO[bytes]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(  # noqa: S603 - our own arguments
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    watchdog = threading.Timer(PACKAGES_S, process.terminate)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield process
        process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        watchdog.cancel()
        if process.stderr:
            process.stderr.close()


def _prove(engine: Engine, image_id: str) -> str:
    """Import what it is made for in a container of the image; Python's version."""
    with engine.calls("run python3 in the new sandbox image") as api:
        container = api.create_container(
            image_id,
            entrypoint=[],
            command=["python3", "-I", "-c", PROOF],
            user="65534:65534",
            network_disabled=True,
            labels=labels("image-check", lifetime_s=5 * PROOF_S),
            host_config=api.create_host_config(
                network_mode="none",
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
            ),
        )["Id"]
    try:
        with engine.calls("run python3 in the new sandbox image") as api:
            api.start(container)
            status = api.wait(container, timeout=PROOF_S)["StatusCode"]
            said = api.logs(container).decode(errors="replace").strip()
    finally:
        engine.remove_container(container)
    if status != 0:
        raise SandboxError(
            f"The image was built, but python3, pytest, pyflakes or mypy does not "
            f"run in it: {said}"
        )
    return str(said)


def _remove(engine: Engine, image_id: str) -> None:
    """Remove an image, unless a container still uses it: the next build will."""
    with engine.calls("remove an image", ignore=(404, 409)) as api:
        api.remove_image(image_id)


def _is_root() -> bool:
    return os.geteuid() == 0
