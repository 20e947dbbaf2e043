"""What happens, as typed events, and the bus that carries them."""

from __future__ import annotations

from agentfarm.events._bus import EventBus
from agentfarm.events._metrics import BusMetrics, SubscriptionMetrics
from agentfarm.events._subscription import Subscription
from agentfarm.events._types import Event, EventType, RequestRecord

__all__ = [
    "BusMetrics",
    "Event",
    "EventBus",
    "EventType",
    "RequestRecord",
    "Subscription",
    "SubscriptionMetrics",
]
