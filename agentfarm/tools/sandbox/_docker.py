"""Runs in Docker containers, each made for one run and thrown away after it."""

from __future__ import annotations

import os
import secrets
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Self

from agentfarm.containers import Engine, EngineInfo, reap
from agentfarm.errors import SandboxError, SandboxTimeout, SandboxUnavailable
from agentfarm.tools.sandbox._container import Container
from agentfarm.tools.sandbox._contract import Files, Limits, SandboxResult
from agentfarm.tools.sandbox._exchange import Job, Outcome, converse, prepare
from agentfarm.tools.sandbox._image import check_image
from agentfarm.tools.sandbox._options import container_options
from agentfarm.tools.sandbox._pool import Pool
from agentfarm.tools.sandbox._recipe import SANDBOX_IMAGE
from agentfarm.tools.sandbox._threads import Slots, Stop, Stopped, in_thread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

POOLED_LIFETIME_S = 6 * 3600.0
MARGIN_S = 300.0  # from a job's timeout to the expiry of its container
GONE_S = 20.0
KILLED = 137
OPEN_ANOTHER = "Open another for further runs."
IPV6 = Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
UNENFORCED = {
    "memory": "memory (memory_bytes): the engine's kernel does not limit it",
    "swap": "swap: a run may swap as much as the machine lets it",
    "pids": "processes (pids): the engine's kernel does not limit them",
    "cpus": "processor time (cpus): the engine's kernel does not limit it",
}
INSTANCE_LABEL = "agentfarm.sandbox"


class DockerSandbox:
    """A `Sandbox` on a Docker engine, every limit on by default.

    Shared-kernel isolation: a flaw in the kernel, or in the runtime, is a flaw
    in it. `runtime="runsc"` (gVisor) puts a kernel of its own in between.

    Args:
        engine: The engine; the local one if None.
        image: Any image with python3; ours if None. `agentfarm sandbox build`
            makes it.
        limits: Of a run that names none.
        timeout_s: Of a run that names none, seconds.
        pool: Containers kept ready for runs with these limits. The first run
            starts the pool.
        concurrency: Runs at once; twice the processors if None.
        runtime: OCI runtime; the engine's default if None.
    """

    backend = "docker"

    def __init__(
        self,
        *,
        engine: Engine | None = None,
        image: str | None = None,
        limits: Limits | None = None,
        timeout_s: float = 60.0,
        pool: int = 2,
        concurrency: int | None = None,
        runtime: str | None = None,
    ) -> None:
        self.engine = engine or Engine()
        self.image = image or SANDBOX_IMAGE
        self.limits = limits or Limits()
        self.timeout_s = timeout_s
        self.runtime = runtime
        self._slots = Slots(concurrency or 2 * (os.cpu_count() or 1))
        self._pool = Pool(self._make_ready, pool)
        self._instance = secrets.token_hex(16)
        self._open: set[Container] = set()
        self._starting = threading.Lock()
        self._started = self._closed = False
        self._unenforced: tuple[str, ...] | None = None
        weakref.finalize(self, _end_streams, self._open)

    @property
    def unenforced(self) -> tuple[str, ...]:
        """Limits that the engine's kernel does not support, in words."""
        if self._unenforced is None:
            self._look(self.engine.info())
        return self._unenforced or ()

    async def run(
        self,
        command: Sequence[str] | str | None = None,
        *,
        python: str | None = None,
        files: Files | None = None,
        stdin: bytes | str = b"",
        env: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        limits: Limits | None = None,
        collect: bool = True,
    ) -> SandboxResult:
        """Run one command in a container of its own; see `Sandbox.run`."""

        def work(stop: Stop) -> SandboxResult:
            job = prepare(
                command,
                python=python,
                files=files,
                stdin=stdin,
                env=env,
                timeout_s=self.timeout_s if timeout_s is None else timeout_s,
                limits=limits or self.limits,
                collect=collect,
            )
            return self._run(job, stop)

        return await in_thread(work, "agentfarm-sandbox")

    async def check(self) -> None:
        """See that the engine answers and has the image.

        Raises:
            SandboxUnavailable: It does not.
        """
        await in_thread(lambda _stop: self._start(), "agentfarm-sandbox-check")

    async def warm(self) -> None:
        """Fill the pool and wait until it is full."""

        def work(stop: Stop) -> None:
            del stop
            self._start()
            self._pool.fill()
            self._pool.wait_full()

        await in_thread(work, "agentfarm-sandbox-warm")

    async def aclose(self) -> None:
        """End what is ready or running, and wait until the engine has removed it."""

        def work(stop: Stop) -> None:
            del stop
            with self._starting:
                self._closed = True
            self._pool.close()
            if self._started:
                self._remove_all()

        await in_thread(work, "agentfarm-sandbox-close")

    async def __aenter__(self) -> Self:
        """Enter the context."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Call `aclose`."""
        await self.aclose()

    def _run(self, job: Job, stop: Stop) -> SandboxResult:
        self._slots.acquire(stop)
        try:
            start = time.monotonic()
            container = self._container(job)
            startup_s = time.monotonic() - start
            outcome = self._converse(container, job, stop)
        finally:
            self._slots.release()
        return outcome.result(
            backend=self.backend, unenforced=self.unenforced, startup_s=startup_s
        )

    def _container(self, job: Job) -> Container:
        self._start()
        until = time.time() + job.timeout_s + MARGIN_S
        if job.limits.fits_container(self.limits):
            container = self._pool.take(until)
            if container is not None:
                return container
        return self._make(job.limits, until - time.time())

    def _start(self) -> None:
        """Once: see that the image is there, and clear what a dead process left."""
        with self._starting:
            if self._closed:
                raise SandboxError("The sandbox was closed.", remedy=OPEN_ANOTHER)
            if not self._started:
                check_image(self.engine, self.image).require()
                self._look(self.engine.info())
                reap(self.engine)
                self._started = True

    def _look(self, info: EngineInfo) -> None:
        self._unenforced = tuple(UNENFORCED[limit] for limit in info.unsupported_limits)
        if self.runtime and self.runtime not in info.runtimes:
            raise SandboxUnavailable(
                f"The Docker engine at {info.url} has no runtime {self.runtime!r}, "
                f"only {', '.join(info.runtimes)}.",
                remedy="Install it and name it in the engine's daemon.json.",
            )

    def _make_ready(self) -> Container:
        return self._make(self.limits, POOLED_LIFETIME_S)

    def _make(self, limits: Limits, lifetime_s: float) -> Container:
        options = container_options(
            self.image,
            limits,
            lifetime_s=lifetime_s,
            runtime=self.runtime,
            ipv6_loopback=self._has_ipv6(),
        )
        options["Labels"][INSTANCE_LABEL] = self._instance
        container = Container(self.engine, options, expires_at=time.time() + lifetime_s)
        self._open.difference_update([each for each in list(self._open) if each.ended])
        self._open.add(container)
        return container

    def _has_ipv6(self) -> bool:
        """Whether it is certain: an engine here, runc, and a kernel with IPv6."""
        here = self.engine.socket_path is not None and self.runtime is None
        return here and IPV6.exists()

    def _converse(self, container: Container, job: Job, stop: Stop) -> Outcome:
        try:
            stop.on_stop(container.channel.shutdown)
            outcome = converse(container.channel, job)
        except BaseException:
            container.kill()
            raise
        if outcome.end == "done":
            container.end()  # only the supervisor is left in it, and it ends too
            return outcome
        container.kill()
        if outcome.end == "lost":
            self._explain_loss(container, outcome, stop)
        return outcome

    def _explain_loss(self, container: Container, outcome: Outcome, stop: Stop) -> None:
        if stop.stopped:
            raise Stopped
        if self._closed:
            raise SandboxError("The sandbox was closed.", remedy=OPEN_ANOTHER)
        if not container.ran_out_of_memory():
            raise SandboxError(
                "The sandbox ended in the middle of the run. "
                f"{container.diagnosis or 'Somebody removed its container.'}",
                remedy="Run it again; `docker events` tells what happened.",
            )
        outcome.oom_killed, outcome.exit_code = True, KILLED

    def _remove_all(self) -> None:
        """Have the engine remove every container of this sandbox, and see it done."""
        deadline = time.monotonic() + GONE_S
        while time.monotonic() < deadline:
            with self.engine.calls("list the containers of this sandbox"):
                left = self.engine.api.containers(
                    all=True, filters={"label": f"{INSTANCE_LABEL}={self._instance}"}
                )
            if not left:
                return
            for container in left:
                self.engine.remove_container(container["Id"])
            time.sleep(0.02)  # a removal in progress has no end to wait for
        raise SandboxTimeout(
            f"{len(left)} containers of this sandbox are not gone after {GONE_S:g} s.",
            remedy="agentfarm sandbox reap",
        )


def _end_streams(containers: set[Container]) -> None:
    """End what a sandbox that nobody closed left open."""
    for container in containers:
        container.end()
