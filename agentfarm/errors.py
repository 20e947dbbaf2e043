"""Every error AgentFarm raises, drawn once.

AgentFarmError
├── ConfigError
├── ProviderError           an LLM server or the way to it failed
│   ├── RateLimited         429; carries Retry-After
│   ├── ProviderTimeout     names the phase: connect, first token, inter-token, total
│   ├── ModelNotFound
│   └── ContextOverflow     the prompt does not fit the model's context
├── SandboxError
│   ├── SandboxUnavailable
│   └── SandboxTimeout
├── VaultError
│   ├── VaultLocked
│   └── VaultExpired
├── AccessDenied
├── StoreError
├── EvalError
├── NotebookError           a notebook could not be read, executed or saved
└── RetrievalError

Catch `AgentFarmError` at the edge of an application, a leaf where the remedy
differs. A message names what was tried, on what, and what to do; it never
holds a secret.
"""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "AgentFarmError",
    "ConfigError",
    "ContextOverflow",
    "EvalError",
    "ModelNotFound",
    "NotebookError",
    "ProviderError",
    "ProviderTimeout",
    "RateLimited",
    "RetrievalError",
    "SandboxError",
    "SandboxTimeout",
    "SandboxUnavailable",
    "StoreError",
    "VaultError",
    "VaultExpired",
    "VaultLocked",
]


class AgentFarmError(Exception):
    """The root of all errors of this package.

    Args:
        message: What was tried, on what, and what went wrong.
        remedy: What the reader can do about it; shown after the message.
    """

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message


class ConfigError(AgentFarmError):
    """A setting is missing, malformed or contradicts another."""


class ProviderError(AgentFarmError):
    """A request to an LLM server failed.

    Attributes:
        provider: The wire format or kind of provider, e.g. ``ollama``.
        host: Base URL of the server, without credentials.
        model: The model asked for.
        status_code: HTTP status, or None where no answer arrived.
        retryable: Whether the same request may succeed later or elsewhere.
        partial_text: What had been streamed before the failure; `""` if nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        remedy: str | None = None,
        provider: str | None = None,
        host: str | None = None,
        model: str | None = None,
        status_code: int | None = None,
        retryable: bool = False,
        partial_text: str = "",
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.provider = provider
        self.host = host
        self.model = model
        self.status_code = status_code
        self.retryable = retryable
        self.partial_text = partial_text


class RateLimited(ProviderError):
    """The server refused for now (429, or 503 with Retry-After).

    Attributes:
        retry_after_s: Seconds the server asked us to wait, if it said so.
    """

    retry_after_s: float | None = None


class ProviderTimeout(ProviderError):
    """The server did not answer in time.

    Attributes:
        phase: ``connect``, ``first token``, ``inter-token`` or ``total``.
        timeout_s: The limit that passed, in seconds.
    """

    phase: str = "total"
    timeout_s: float | None = None


class ModelNotFound(ProviderError):
    """The server, or the router, knows no model of this name."""


class ContextOverflow(ProviderError):
    """The prompt does not fit into the model's context.

    Attributes:
        prompt_tokens: Length of the prompt in tokens, if the server said so.
        context_length: Tokens that the model's context holds, if known.
    """

    prompt_tokens: int | None = None
    context_length: int | None = None


class SandboxError(AgentFarmError):
    """Code could not be run in the sandbox."""


class SandboxUnavailable(SandboxError):
    """No sandbox can be had on this machine."""


class SandboxTimeout(SandboxError):
    """The sandbox did not start or stop in time."""


class VaultError(AgentFarmError):
    """The SecureVault refused."""


class VaultLocked(VaultError):
    """The vault is locked or held by another session."""


class VaultExpired(VaultError):
    """The vault's time is over and its content is gone."""


class AccessDenied(AgentFarmError):
    """The caller's tier or token does not allow this."""


class StoreError(AgentFarmError):
    """The Store cannot be opened, read or written."""


class EvalError(AgentFarmError):
    """A suite, task or scorer is malformed, or a run cannot be found."""


class NotebookError(AgentFarmError):
    """A notebook could not be read, executed or saved.

    Attributes:
        cell_number: The code cell that failed, counted from 1; None if none did.
        ipynb: Where what ran until then is saved, as a path; None if nowhere.
    """

    def __init__(
        self,
        message: str,
        *,
        remedy: str | None = None,
        cell_number: int | None = None,
        ipynb: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.cell_number = cell_number
        self.ipynb = ipynb


class RetrievalError(AgentFarmError):
    """A document, index or query failed."""
