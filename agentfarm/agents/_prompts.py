"""The system prompts, packaged as Markdown so that people can read and weigh them."""

from __future__ import annotations

from functools import cache
from importlib import resources

PROMPTS = ("executor", "peer", "planner", "reviewer", "ux_designer")


@cache
def prompt(name: str) -> str:
    """The system prompt of that name, read once.

    Raises:
        ValueError: There is none.
    """
    if name not in PROMPTS:
        raise ValueError(f"There is no prompt {name!r}; there are {PROMPTS}.")
    file = resources.files("agentfarm.agents").joinpath("prompts", f"{name}.md")
    return file.read_text(encoding="utf-8").strip()


def instructions(name: str, context: str = "") -> str:
    """The system prompt of that name, with a block of context if there is one.

    Args:
        name: Of the prompt.
        context: As `context_block` makes it, which marks it as data.
    """
    return f"{prompt(name)}\n\n{context}" if context.strip() else prompt(name)


def sections(*parts: tuple[str, str]) -> str:
    """A user prompt of titled parts; those with no text are left out."""
    return "\n\n".join(
        f"## {title}\n{text.strip()}" for title, text in parts if text.strip()
    )
