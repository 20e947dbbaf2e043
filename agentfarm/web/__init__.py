"""The API server: what agents and hardware do, over HTTP and WebSocket."""

from __future__ import annotations

from agentfarm.web._serving import Started, serve
from agentfarm.web._tokens import Tokens
from agentfarm.web.server import create_app

__all__ = ["Started", "Tokens", "create_app", "serve"]
