"""What a failed attempt says about its host, and the router's own errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentfarm.errors import AgentFarmError, ProviderError, ProviderTimeout, RateLimited

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentfarm.llm._hosts import Lane
    from agentfarm.llm._messages import ChatRequest

__all__ = ["blocked", "is_well", "no_answer", "out_of_time"]


def is_well(error: AgentFarmError) -> bool | None:
    """Whether the host of a failed attempt works; None where that says nothing.

    A refusal (429, 404, a prompt too long) comes from a host in good health.
    """
    if not isinstance(error, ProviderError):
        return None
    if isinstance(error, RateLimited):
        return True
    return not error.retryable and (error.status_code or 0) < 500


def out_of_time(
    request: ChatRequest, lane: Lane | None, *, total_s: float, doing: str
) -> ProviderTimeout:
    """The request's deadline passed while it was `doing` something."""
    entry = lane.entry if lane else None
    error = ProviderTimeout(
        f"The request was not done within {total_s:g} s; time ran out {doing}.",
        remedy="Raise timeouts.total_s, or ask for fewer tokens.",
        provider=entry.provider.kind if entry else "router",
        host=entry.provider.host if entry else None,
        model=entry.name if entry else request.model,
    )
    error.phase = "total"
    error.timeout_s = total_s
    return error


def no_answer(lane: Lane) -> ProviderError:
    """The stream ended without the response that every provider owes."""
    entry = lane.entry
    return ProviderError(
        f"{entry.provider.host} ended its stream for {entry.name} without an answer.",
        provider=entry.provider.kind,
        host=entry.provider.host,
        model=entry.name,
        retryable=True,
    )


def blocked(lanes: Sequence[Lane], now: float) -> ProviderError:
    """Why none of `lanes` may be asked, where none was."""
    lane = min(lanes, key=lambda lane: lane.blocked_s(now))
    entry, host = lane.entry, lane.entry.provider.host
    quiet_s = lane.quiet_until - now
    if quiet_s > 0:
        limited = RateLimited(
            f"{host} asked to be left alone for {quiet_s:.0f} s more; {entry.name} "
            "was not asked.",
            remedy="Wait, or lower its max_concurrency.",
            provider=entry.provider.kind,
            host=host,
            model=entry.name,
            retryable=True,
        )
        limited.retry_after_s = quiet_s
        return limited
    probe_s = lane.breaker.probe_in_s
    when = f"in {probe_s:.0f} s" if probe_s > 0 else "and a probe is under way"
    return ProviderError(
        f"{entry.name} at {host} was not asked, since it kept failing: "
        f"{lane.last_error or 'unknown error'}",
        remedy=f"The next probe comes {when}; `agentfarm llm status` shows more.",
        provider=entry.provider.kind,
        host=host,
        model=entry.name,
        retryable=True,
    )
