"""Panels: widgets that show what happens while it happens, and let people steer it."""

from __future__ import annotations

from agentfarm.notebook.panels._download import Download, download
from agentfarm.notebook.panels._workflow import WorkflowPanel

__all__ = ["Download", "WorkflowPanel", "download"]
