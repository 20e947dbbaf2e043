"""What went wrong on the way to the engine, as one of our errors with its remedy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agentfarm.errors import SandboxError, SandboxTimeout, SandboxUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_CREDENTIALS = re.compile(r"//[^/@\s]*@")

INSTALL = (
    "Install and start one: apt-get install docker.io. If it listens elsewhere, "
    "set AGENTFARM_DOCKER_HOST to its address."
)
START = "Start it: systemctl start docker."
JOIN = (
    "Join its group and log in anew: sudo usermod -aG docker $USER (members of it "
    "are as good as root), or run a rootless engine and set AGENTFARM_DOCKER_HOST "
    "to its socket."
)
LOOK = "See whether it is well: docker info; restart it if it is not."
ADDRESS = "Correct AGENTFARM_DOCKER_HOST, e.g. unix:///var/run/docker.sock."


def without_credentials(text: str) -> str:
    """Take user names and passwords out of the addresses in a text."""
    return _CREDENTIALS.sub("//", text)


def vendor_errors() -> tuple[type[Exception], ...]:
    """What the Docker SDK and the HTTP libraries below it raise."""
    import docker.errors
    import requests.exceptions
    import urllib3.exceptions

    return (
        docker.errors.DockerException,
        docker.errors.StreamParseError,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
    )


def sdk_missing(error: ImportError) -> SandboxUnavailable:
    """The Docker SDK, or a package that it needs, cannot be imported."""
    return SandboxUnavailable(
        f"The Docker SDK for Python is not installed ({error}).",
        remedy="pip install 'agentfarm[sandbox]'",
    )


def connecting(error: Exception, url: str, timeout_s: float) -> SandboxUnavailable:
    """Why the engine cannot be reached.

    Args:
        error: What the SDK raised.
        url: The engine's address, without credentials.
        timeout_s: The limit of one request, in seconds.
    """
    unreachable = _unreachable(error, url)
    if unreachable is not None:
        return unreachable
    if _is_timeout(error):
        return SandboxUnavailable(
            f"The Docker engine at {url} did not answer within {timeout_s:g} s.",
            remedy=LOOK,
        )
    if _is_network(error):
        return SandboxUnavailable(
            f"What listens at {url} broke the connection off; it may be no Docker "
            "engine.",
            remedy=f"{LOOK} {ADDRESS}",
        )
    return SandboxUnavailable(
        f"The Docker engine at {url} cannot be used: "
        f"{without_credentials(str(error))}.",
        remedy=ADDRESS,
    )


def calling(error: Exception, what: str, url: str, timeout_s: float) -> SandboxError:
    """Why one request failed.

    Args:
        error: What the SDK raised.
        what: What was tried: a verb and its object.
        url: The engine's address, without credentials.
        timeout_s: The limit of one request, in seconds.
    """
    import docker.errors

    tried = f"Tried to {what} on the Docker engine at {url}"
    status = status_of(error)
    if isinstance(error, docker.errors.ImageNotFound):
        return SandboxUnavailable(
            f"{tried}: {_explanation(error)}.",
            remedy="Build the sandbox's image: agentfarm sandbox build; or name an "
            "image that is there.",
        )
    if status is not None:
        return SandboxError(f"{tried}: {_explanation(error)} (HTTP {status}).")
    if (unreachable := _unreachable(error, url)) is not None:
        return unreachable
    if _is_timeout(error):
        return SandboxTimeout(
            f"{tried}: no answer within {timeout_s:g} s.", remedy=LOOK
        )
    if _is_network(error):
        return SandboxUnavailable(f"{tried}: it broke the connection off.", remedy=LOOK)
    return SandboxError(f"{tried}: {without_credentials(str(error))}.")


def status_of(error: Exception) -> int | None:
    """The HTTP status of the engine's refusal; None where there was no answer."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _explanation(error: Exception) -> str:
    said = getattr(error, "explanation", None) or "it refused without a reason"
    return without_credentials(str(said)).strip().rstrip(".")


def _unreachable(error: Exception, url: str) -> SandboxUnavailable | None:
    """Name the reasons that the operating system gives, each with its remedy."""
    reasons: dict[type[OSError], tuple[str, str]] = {
        FileNotFoundError: (f"There is no Docker engine at {url}.", INSTALL),
        PermissionError: (f"You may not use the Docker engine at {url}.", JOIN),
        ConnectionRefusedError: (f"No Docker engine listens at {url}.", START),
    }
    for cause in _causes(error):
        for kind, (message, remedy) in reasons.items():
            if isinstance(cause, kind):
                return SandboxUnavailable(message, remedy=remedy)
    return None


def _is_timeout(error: Exception) -> bool:
    import requests.exceptions
    import urllib3.exceptions

    kinds = (
        TimeoutError,
        requests.exceptions.Timeout,
        urllib3.exceptions.TimeoutError,
    )
    return any(isinstance(cause, kinds) for cause in _causes(error))


def _is_network(error: Exception) -> bool:
    import requests.exceptions
    import urllib3.exceptions

    kinds = (
        ConnectionError,
        requests.exceptions.ConnectionError,
        requests.exceptions.ChunkedEncodingError,
        urllib3.exceptions.ProtocolError,
    )
    return any(isinstance(cause, kinds) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and all below it: the SDK buries the one of the operating system."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        item = waiting.pop(0)
        if not isinstance(item, BaseException) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        # Not __context__: it may be what the caller was busy with.
        waiting += [item.__cause__, *item.args]
