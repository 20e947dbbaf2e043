"""What agents can do: tools with checked arguments, over files and the sandbox.

A tool's failure is a result that a model can act on, not an exception.
"""

from __future__ import annotations

from agentfarm.tools._file_tools import file_tools
from agentfarm.tools._registry import ToolRegistry
from agentfarm.tools._sandbox_tools import sandbox_tools
from agentfarm.tools._tool import Tool, ToolResult

__all__ = ["Tool", "ToolRegistry", "ToolResult", "file_tools", "sandbox_tools"]
