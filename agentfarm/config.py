"""Settings: the only reader of the environment and of `agentfarm.toml`."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from agentfarm.errors import ConfigError

__all__ = [
    "EmbeddedSettings",
    "LimitSettings",
    "ModelSettings",
    "SamplerSettings",
    "SandboxSettings",
    "Settings",
    "TimeoutSettings",
    "WebSettings",
    "describe_problems",
    "load_settings",
]

ProviderName = Literal["openai", "ollama", "embedded", "replay"]


class TimeoutSettings(BaseModel):
    """Limits of one LLM request, in seconds; None means no limit.

    A cold local server may load a model for minutes before the first token, and
    a client that gives up aborts the load, so `first_token_s` is generous.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    connect_s: float | None = Field(default=5.0, gt=0)
    first_token_s: float | None = Field(default=300.0, gt=0)
    inter_token_s: float | None = Field(default=60.0, gt=0)
    total_s: float | None = Field(default=None, gt=0)


class EmbeddedSettings(BaseModel):
    """The llama.cpp server that AgentFarm starts by itself.

    `context_length` is what each of the `slots` gets, in tokens. One thread is the default: two are faster on free cores and collapse when one
    of them is contended.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gguf: Path | None = None
    context_length: int = Field(default=4096, ge=256)
    slots: int = Field(default=2, ge=1, description="Requests served at once.")
    threads: int = Field(default=1, ge=1)
    linger_s: float = Field(
        default=2.0, ge=0, description="Time the server outlives its last user."
    )


class ModelSettings(BaseModel):
    """One model on one host, as `agentfarm models add` writes it.

    Attributes:
        name: What people and suites call it. Several entries of one name are
            alternatives between which the router balances.
        provider: The wire format.
        url: Base URL, e.g. ``http://127.0.0.1:11434``; none for ``embedded``.
        model: The server's name for it; `name` if left out.
        context_length: Tokens; sent to Ollama as ``num_ctx``.
        capabilities: Of ``tools``, ``json_schema``, ``vision``, ``thinking``.
        task_types: Task types it is preferred for; empty means any.
        max_concurrency: Requests at once on the host.
        api_key_env: Name of the environment variable that holds the key.
        cassette: The recorded session, for ``replay``.
        gguf: A model file, for ``embedded``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    provider: ProviderName
    url: str | None = Field(default=None, repr=False)  # may hold a password
    model: str | None = None
    context_length: int | None = Field(default=None, ge=1)
    capabilities: frozenset[str] = frozenset()
    task_types: frozenset[str] = frozenset()
    max_concurrency: int | None = Field(default=None, ge=1)
    api_key_env: str | None = None
    cassette: Path | None = None
    gguf: Path | None = None


class LimitSettings(BaseModel):
    """Limits of one run in the sandbox; None leaves the default of `Limits`.

    Sizes are bytes, or text with a unit such as ``512MiB``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_bytes: ByteSize | None = Field(default=None, gt=0)
    cpus: float | None = Field(default=None, gt=0)
    pids: int | None = Field(default=None, gt=0)
    open_files: int | None = Field(default=None, gt=0)
    file_size_bytes: ByteSize | None = Field(default=None, gt=0)
    work_bytes: ByteSize | None = Field(default=None, gt=0)
    work_inodes: int | None = Field(default=None, gt=0)
    tmp_bytes: ByteSize | None = Field(default=None, gt=0)
    tmp_inodes: int | None = Field(default=None, gt=0)
    shm_bytes: ByteSize | None = Field(default=None, gt=0)
    output_bytes: ByteSize | None = Field(default=None, gt=0)
    collect_files: int | None = Field(default=None, gt=0)
    collect_bytes: ByteSize | None = Field(default=None, gt=0)


class SandboxSettings(BaseModel):
    """Where code that a model wrote runs.

    Attributes:
        backend: ``auto`` takes Docker, else bubblewrap, else refuses.
        image: Docker image with `python3`; our own if None.
        runtime: OCI runtime of the engine, e.g. ``runsc``; its default if None.
        pool: Containers kept ready while a sandbox is open.
        concurrency: Runs at once; twice the processors if None.
        timeout_s: Wall time of a run that names none, seconds.
        limits: What a run may use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Literal["auto", "docker", "bubblewrap"] = "auto"
    image: str | None = Field(default=None, min_length=1)
    runtime: str | None = Field(default=None, min_length=1)
    pool: int = Field(default=2, ge=0)
    concurrency: int | None = Field(default=None, ge=1)
    timeout_s: float = Field(default=60.0, gt=0)
    limits: LimitSettings = LimitSettings()


class WebSettings(BaseModel):
    """The API server, `agentfarm serve`.

    Attributes:
        host: Address to listen on. Any but this machine's own loopback needs a token.
        port: TCP port; 0 for any free one.
        require_token: Need a token on the loopback address too, e.g. where several
            people share the machine.
        token_file: Where the tokens are kept; ``web-tokens.json`` in `home` if None.
        allowed_hosts: Names under which the server may be asked, beside loopback
            names and addresses.
        max_body_bytes: Largest body of a request.
        requests_per_s: Of one client address, on average; None for no limit. After a
            pause, those of 10 seconds may come at once.
        max_clients: WebSockets at once.
        max_workflows: Workflows at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8700, ge=0, le=65535)
    require_token: bool = False
    token_file: Path | None = None
    allowed_hosts: frozenset[str] = frozenset()
    max_body_bytes: ByteSize = Field(default=ByteSize(2**20), gt=0)
    requests_per_s: float | None = Field(default=200.0, gt=0)
    max_clients: int = Field(default=256, ge=1)
    max_workflows: int = Field(default=4, ge=1)


class SamplerSettings(BaseModel):
    """How the hardware is sampled, by whichever process of this machine began.

    Attributes:
        enabled: Whether this process takes part.
        interval_s: Time between two samples, seconds.
        raw_hours: Age at which samples are averaged over a minute.
        retention_days: Age at which averages are deleted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    # Above this, one sample that is missing would leave a gap in an energy.
    interval_s: float = Field(default=1.0, ge=0.1, le=2.0)
    raw_hours: float = Field(default=24.0, gt=0)
    retention_days: float = Field(default=30.0, gt=0)


class Settings(BaseSettings):
    """What a person can set, frozen after loading.

    Order: explicit argument, then ``AGENTFARM_*`` in the environment, then
    ``agentfarm.toml`` in the working directory, then ``agentfarm.toml`` in
    `home`, then the default. Nested values take two underscores, e.g.
    ``AGENTFARM_TIMEOUTS__FIRST_TOKEN_S=600``.

    Attributes:
        home: Where all state lives.
        database_url: SQLAlchemy URL of the Store; a SQLite file in `home` if None.
        default_model: The model that is used where none is named.
        local_only: Refuse hosts that are not on this machine or a private network.
        models: Models beside the embedded one.
        cassette: Recorded session behind the model name ``replay``.
        cassette_speed: How ``replay`` answers: ``exact`` reports the recorded
            timings without waiting, ``fast`` measures afresh without waiting,
            ``recorded`` waits as the recording did.
        tracker_window: Requests in the rolling window of PerformanceTracker.
        store_flush_s: Longest time that telemetry waits for its batch, seconds.
        docker_host: URL of the Docker engine; ``DOCKER_HOST``, else the local
            engine's socket, if None.
        sandbox: Where code that a model wrote runs.
        sampler: How the hardware is sampled.
        web: The API server.
        otlp_endpoint: Base URL of an OTLP/HTTP receiver, e.g.
            ``http://127.0.0.1:4318``, that gets spans of all that happens.
        otlp_headers: Sent to it with every request, e.g. ``authorization``.
        otlp_content: Whether spans hold also what people and models wrote.
    """

    model_config = SettingsConfigDict(
        env_prefix="AGENTFARM_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        toml_file="agentfarm.toml",
    )

    home: Path = Field(default_factory=lambda: Path.home() / ".agentfarm")
    database_url: str | None = Field(default=None, repr=False)  # may hold a password
    default_model: str = "embedded"
    local_only: bool = True
    models: tuple[ModelSettings, ...] = ()
    timeouts: TimeoutSettings = TimeoutSettings()
    embedded: EmbeddedSettings = EmbeddedSettings()
    cassette: Path | None = None
    cassette_speed: Literal["exact", "fast", "recorded"] = "exact"
    tracker_window: int = Field(default=1000, ge=1)
    store_flush_s: float = Field(default=0.2, gt=0)
    docker_host: str | None = Field(default=None, repr=False)  # may hold a user name
    sandbox: SandboxSettings = SandboxSettings()
    sampler: SamplerSettings = SamplerSettings()
    web: WebSettings = WebSettings()
    otlp_endpoint: str | None = Field(default=None, repr=False)  # may hold a password
    otlp_headers: dict[str, SecretStr] = Field(default_factory=dict)
    otlp_content: bool = False

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the two TOML files behind the environment."""
        del dotenv_settings, file_secret_settings
        home = _early_home(init_settings, env_settings)
        return (
            init_settings,
            env_settings,
            TomlConfigSettingsSource(settings_cls, Path("agentfarm.toml")),
            TomlConfigSettingsSource(settings_cls, home / "agentfarm.toml"),
        )

    @property
    def store_url(self) -> str:
        """The URL of the Store, with the default filled in."""
        return self.database_url or f"sqlite:///{self.home / 'agentfarm.db'}"

    @property
    def web_token_path(self) -> Path:
        """Where the API server's tokens are kept."""
        return self.web.token_file or self.home / "web-tokens.json"

    @property
    def config_path(self) -> Path:
        """The file that `agentfarm models add` writes."""
        return self.home / "agentfarm.toml"

    def api_key(self, variable: str) -> SecretStr:
        """Read a key from the environment at the moment it is needed.

        Raises:
            ConfigError: The variable is not set.
        """
        value = os.environ.get(variable)
        if not value:
            raise ConfigError(
                f"The environment variable {variable} is not set.",
                remedy=f"Set it to the API key: export {variable}=…",
            )
        return SecretStr(value)


def _early_home(
    init_settings: PydanticBaseSettingsSource, env_settings: PydanticBaseSettingsSource
) -> Path:
    """Find `home` before validation, since a TOML file lies in it."""
    for source in (init_settings, env_settings):
        value = source().get("home")
        if value:
            return Path(value).expanduser()
    return Path.home() / ".agentfarm"


def load_settings(**explicit: Any) -> Settings:
    """Read all sources into frozen `Settings`.

    Raises:
        ConfigError: A value is malformed; the message names it and its source.
    """
    try:
        settings = Settings(**explicit)
    except ValidationError as error:
        raise ConfigError(
            f"Settings are not valid: {describe_problems(error)}.",
            remedy="Look at AGENTFARM_* in the environment and at agentfarm.toml.",
        ) from None
    except SettingsError as error:
        raise ConfigError(
            f"Settings are not valid: {error}.",
            remedy="A list or a table in AGENTFARM_* is written as JSON.",
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"agentfarm.toml is not valid TOML: {error}.", remedy="Mend or remove it."
        ) from None
    return settings.model_copy(
        update={
            "home": settings.home.expanduser().resolve(),
            "docker_host": settings.docker_host or os.environ.get("DOCKER_HOST"),
        }
    )


def describe_problems(error: ValidationError) -> str:
    """Name each bad value and why, without repeating the value: it may be secret."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
        for item in error.errors(include_input=False, include_url=False)
    )
