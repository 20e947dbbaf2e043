"""A Jupyter kernel of this Python, owned by one call."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint_if_cancelled
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from agentfarm.errors import NotebookError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

_START_S = 60
_LAST_WORDS = 800


class _ThisPython(KernelSpecManager):
    """Finds one kernel only: the interpreter that runs this code.

    A kernel called ``python3`` may be installed for any other interpreter, one
    that does not have this package. The variables go into the specification,
    which is laid over the environment that a kernel inherits.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__()
        self._variables = dict(variables)

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        del kernel_name
        launch = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(
            argv=launch,
            display_name="Python 3",
            language="python",
            env=self._variables,
        )


class Kernel:
    """A running kernel with its client.

    Attributes:
        timeout_s: The longest that one cell may take, seconds; None for no limit.
        stuck: Set it where a cell does not return: the kernel is then killed
            rather than asked to stop.
    """

    def __init__(
        self, manager: AsyncKernelManager, stderr: IO[bytes], timeout_s: float | None
    ) -> None:
        self.timeout_s = timeout_s
        self.stuck = False
        self._manager = manager
        self._stderr = stderr
        self._client: Any = None

    def client_for(self, notebook: Any) -> NotebookClient:
        """What executes the cells of `notebook`."""
        client = NotebookClient(
            notebook,
            km=self._manager,
            # nbclient's own option holds whole seconds only.
            timeout_func=lambda cell: self.timeout_s,
            record_timing=False,
            store_widget_state=False,
            coalesce_streams=True,
        )
        client.kc = self._client
        return client

    async def start(self, cwd: Path) -> None:
        """Start the process and wait until it answers.

        Raises:
            NotebookError: It ended or did not answer in time.
        """
        await self._manager.start_kernel(
            cwd=str(cwd), stdout=subprocess.DEVNULL, stderr=self._stderr
        )
        self._client = self._manager.client()
        self._client.start_channels()
        try:
            await self._client.wait_for_ready(timeout=_START_S)
        except RuntimeError as error:
            raise NotebookError(
                f"The Jupyter kernel of {sys.executable} did not start: {error}. "
                f"{self.last_words()}",
                remedy="Install ipykernel into this environment.",
            ) from None

    async def stop(self, *, now: bool) -> None:
        """End the process; `now` kills it, else it ends its own work first."""
        if self._client is not None:
            self._client.stop_channels()
        if self._manager.has_kernel:
            await self._manager.shutdown_kernel(now=now)

    def last_words(self) -> str:
        """The end of what the kernel wrote to its standard error."""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace").strip()[-_LAST_WORDS:]

    async def raise_if_cancelled(self) -> None:
        """Cancel the caller if that is what happened.

        nbclient reports the cancellation of its caller as a dead kernel.

        Raises:
            CancelledError: The caller was cancelled.
        """
        await checkpoint_if_cancelled()
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError


@asynccontextmanager
async def open_kernel(
    variables: Mapping[str, str], cwd: Path, timeout_s: float | None
) -> AsyncGenerator[Kernel]:
    """Start a kernel in the folder `cwd` and end it afterwards, come what may.

    nbclient could do this itself, but it takes over the loop's SIGINT handler.
    """
    with (
        tempfile.TemporaryDirectory(prefix="agentfarm-") as folder,
        tempfile.TemporaryFile() as stderr,
    ):
        manager = AsyncKernelManager(
            kernel_spec_manager=_ThisPython(variables),
            # Sockets that no other user reaches, where TCP would be open to all.
            transport="ipc",
            connection_file=str(Path(folder) / "kernel.json"),
        )
        kernel = Kernel(manager, stderr, timeout_s)
        now = True
        try:
            await kernel.start(cwd)
            yield kernel
            now = False
        except NotebookError:
            now = kernel.stuck
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await kernel.stop(now=now)
