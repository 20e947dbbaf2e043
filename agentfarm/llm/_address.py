"""Base URLs of servers."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from agentfarm.errors import ConfigError


def split_credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """A base URL without credentials and trailing slash, and the credentials.

    Raises:
        ConfigError: It is not an http or https URL with a host.
    """
    parts = urlsplit(url.strip())
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise ConfigError(
            f"{url.rpartition('@')[2]!r} is not the address of an LLM server.",
            remedy="Write it like http://127.0.0.1:8080.",
        )
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    netloc = name if port is None else f"{name}:{port}"
    bare = urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))
    if parts.username is None:
        return bare, None
    return bare, (parts.username, parts.password or "")
