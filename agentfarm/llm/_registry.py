"""The models that a router knows, and which of their hosts count as local."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args
from urllib.parse import urlsplit

from agentfarm.errors import ConfigError
from agentfarm.llm._messages import TaskType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentfarm.llm._provider import Provider

__all__ = ["RegisteredModel", "is_local_host"]

TASK_TYPES: tuple[str, ...] = get_args(TaskType)
CAPABILITIES = ("json_schema", "thinking", "tools", "vision")

_LOCAL_NETWORKS = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",
        "::1/128",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "fc00::/7",
        "fe80::/10",
        # Connecting to "any address" reaches this machine.
        "0.0.0.0/32",
        "::/128",
    )
)
_LOCAL_SUFFIXES = (
    ".localhost",
    ".local",
    ".lan",
    ".internal",
    ".home.arpa",
)
# The C library reads 134744072 and 0x08080808 as the address 8.8.8.8.
_NUMERIC = re.compile(r"\d+|0x[0-9a-f]*")
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisteredModel:
    """One model on one host, as the router knows it.

    Attributes:
        name: What people call it. Several registrations of one name are
            alternatives between which the router balances.
        provider: How to ask it.
        model: The server's name for it; `name` if empty.
        context_length: Tokens; asked for where a request does not say.
        capabilities: Of ``tools``, ``json_schema``, ``vision``, ``thinking``;
            empty means unknown.
        task_types: Task types it is preferred for; empty means any.
        max_concurrency: Requests at once on the host. Models of one host share
            one limit, the smallest that any of them names.
        preference: Where a request names no model, one of a lower preference is
            asked only if those of a higher one fail.
    """

    name: str
    provider: Provider
    model: str = ""
    context_length: int | None = None
    capabilities: frozenset[str] = frozenset()
    task_types: frozenset[str] = frozenset()
    max_concurrency: int = 4
    preference: int = 0

    def __post_init__(self) -> None:
        """Fill in `model` and refuse what makes no sense.

        Raises:
            ConfigError: The name is empty, the limit is not positive, or a task
                type or capability is unknown.
        """
        if not self.name or self.max_concurrency < 1:
            raise ConfigError(
                f"Model {self.name!r} with max_concurrency {self.max_concurrency} "
                "cannot be registered.",
                remedy="Give it a name and a limit of at least 1.",
            )
        self._check("task type", self.task_types, TASK_TYPES)
        self._check("capability", self.capabilities, CAPABILITIES)
        if not self.model:
            object.__setattr__(self, "model", self.name)

    def _check(self, what: str, values: Iterable[str], known: Iterable[str]) -> None:
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(
                f"Model {self.name!r} names an unknown {what}: {', '.join(unknown)}.",
                remedy=f"Known are {', '.join(sorted(known))}.",
            )


def is_local_host(host: str) -> bool:
    """Whether a base URL or host name is on this machine or a private network.

    Decided from the text alone, without asking DNS: addresses that are loopback,
    private (RFC 1918, RFC 4193) or link-local; ``localhost``; names under
    ``.localhost``, ``.local``, ``.lan``, ``.internal`` and ``.home.arpa``; and
    names of one label, which only a local resolver or hosts file knows. All
    else is remote, and so is whatever cannot be read with certainty.
    """
    if "\\" in host or any(character.isspace() for character in host):
        return False
    try:
        name = urlsplit(host if "//" in host else f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return _is_local_name(name.lower())
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in _LOCAL_NETWORKS)


def _is_local_name(name: str) -> bool:
    if not _NAME.fullmatch(name) or _NUMERIC.fullmatch(name):
        return False
    return "." not in name or name.endswith(_LOCAL_SUFFIXES)
