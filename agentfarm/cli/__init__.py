"""The command line: `agentfarm --help`."""

from __future__ import annotations

from agentfarm.cli._app import main

__all__ = ["main"]
