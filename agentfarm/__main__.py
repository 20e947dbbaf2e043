"""`python -m agentfarm` is the same as `agentfarm`."""

from __future__ import annotations

from agentfarm.cli import main

main()
