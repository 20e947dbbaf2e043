"""Runs in bubblewrap, where there is no Docker engine."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from agentfarm.errors import SandboxError, SandboxTimeout, SandboxUnavailable
from agentfarm.tools.sandbox._contract import Files, Limits, SandboxResult
from agentfarm.tools.sandbox._exchange import Job, Outcome, converse, prepare
from agentfarm.tools.sandbox._jail import Host, Jail
from agentfarm.tools.sandbox._probe import probe
from agentfarm.tools.sandbox._threads import Slots, Stop, Stopped, in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

KILLED = 137
GONE_S = 20.0


class BubblewrapSandbox:
    """A `Sandbox` out of Linux namespaces, made in milliseconds, without a daemon.

    Shared-kernel isolation, like Docker's. The code inside runs under a user who
    owns nothing: `nobody` where root starts it, else the caller's own, who sees of
    the host's disk /usr and a Python, read-only. Where control groups are not to be
    had, some limits do not hold; `unenforced` tells.

    Args:
        limits: Of a run that names none.
        timeout_s: Of a run that names none, seconds.
        concurrency: Runs at once; twice the processors if None.
        host: What sandboxes are made of; found out at the first use if None.
    """

    backend = "bubblewrap"

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        timeout_s: float = 60.0,
        concurrency: int | None = None,
        host: Host | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.timeout_s = timeout_s
        self._slots = Slots(concurrency or 2 * (os.cpu_count() or 1))
        self._probing = threading.Lock()
        self._host = host
        self._jails: set[Jail] = set()
        self._changed = threading.Condition()
        self._closed = False

    def available(self) -> str | None:
        """Why this machine has no such sandbox, with the remedy; None if it has.

        The first call starts a sandbox or two, which takes some 100 ms.
        """
        try:
            self._probe()
        except SandboxUnavailable as error:
            return str(error)
        return None

    async def check(self) -> None:
        """See that sandboxes can be made here.

        Raises:
            SandboxUnavailable: They cannot; with the cause and the remedy.
        """
        await in_thread(lambda _: self._probe(), "agentfarm-sandbox-check")

    @property
    def unenforced(self) -> tuple[str, ...]:
        """Limits that it cannot enforce on this machine, in words.

        Raises:
            SandboxUnavailable: There is no such sandbox here.
        """
        return self._probe().unenforced

    @property
    def interpreter(self) -> str:
        """Which Python runs inside, in words, and whether pytest is there.

        Raises:
            SandboxUnavailable: There is no such sandbox here.
        """
        return self._probe().python

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
        """Run one command in a sandbox of its own; see `Sandbox.run`."""

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

    async def aclose(self) -> None:
        """Kill what runs and wait until it is gone; runs after this are refused."""
        await in_thread(lambda _: self._close(), "agentfarm-sandbox-close")

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
            host = self._probe()
            with self._jail(host, job.limits, stop) as jail:
                jail.start()
                startup_s = time.monotonic() - start
                outcome = converse(jail.channel, job)
        except SandboxError:
            self._stop_if_told(stop)
            raise
        finally:
            self._slots.release()
        if outcome.end == "lost":
            self._stop_if_told(stop)
            _explain_loss(jail, outcome)
        outcome.oom_killed |= jail.oom_killed
        return outcome.result(
            backend=self.backend, unenforced=host.unenforced, startup_s=startup_s
        )

    @contextmanager
    def _jail(self, host: Host, limits: Limits, stop: Stop) -> Iterator[Jail]:
        """Make a sandbox that a cancellation and `aclose` can end."""
        jail = Jail(host, limits)
        try:
            with self._changed:
                self._jails.add(jail)
                if self._closed:
                    jail.shutdown()
            stop.on_stop(jail.shutdown)
            yield jail
        finally:
            try:
                jail.end()
            finally:
                with self._changed:
                    self._jails.discard(jail)
                    self._changed.notify_all()

    def _stop_if_told(self, stop: Stop) -> None:
        if stop.stopped:
            raise Stopped from None
        if self._closed:
            raise SandboxError(
                "The sandbox was closed.", remedy="Open another for further runs."
            ) from None

    def _close(self) -> None:
        with self._changed:
            self._closed = True
            for jail in self._jails:
                jail.shutdown()
            if not self._changed.wait_for(lambda: not self._jails, GONE_S):
                raise SandboxTimeout(
                    f"{len(self._jails)} runs are not gone after {GONE_S:g} s.",
                    remedy="A process in them hangs in the kernel; see `dmesg`.",
                )

    def _probe(self) -> Host:
        with self._probing:
            if self._host is None:
                self._host = probe()
            return self._host


def _explain_loss(jail: Jail, outcome: Outcome) -> None:
    if not jail.oom_killed:
        raise SandboxError(
            "The sandbox ended in the middle of the run. "
            f"{jail.diagnosis or 'Somebody killed its supervisor.'}",
            remedy="Run it again; `dmesg` tells what the kernel killed.",
        )
    outcome.exit_code = KILLED
