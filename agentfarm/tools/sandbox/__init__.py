"""Run code that a model wrote where it can reach nothing.

Example: ``async with await open_sandbox() as sandbox:``
``print(await sandbox.run(python="print(6 * 7)"))``
"""

from agentfarm.tools.sandbox._bubblewrap import BubblewrapSandbox
from agentfarm.tools.sandbox._build import BuiltImage, build_image
from agentfarm.tools.sandbox._contract import (
    Limits,
    Sandbox,
    SandboxFile,
    SandboxResult,
)
from agentfarm.tools.sandbox._docker import DockerSandbox
from agentfarm.tools.sandbox._files import save
from agentfarm.tools.sandbox._image import ImageState, check_image
from agentfarm.tools.sandbox._open import limits_of, open_sandbox, wanted_backend
from agentfarm.tools.sandbox._recipe import SANDBOX_IMAGE

__all__ = [
    "SANDBOX_IMAGE",
    "BubblewrapSandbox",
    "BuiltImage",
    "DockerSandbox",
    "ImageState",
    "Limits",
    "Sandbox",
    "SandboxFile",
    "SandboxResult",
    "build_image",
    "check_image",
    "limits_of",
    "open_sandbox",
    "save",
    "wanted_backend",
]
