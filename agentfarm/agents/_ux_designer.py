"""The UX designer, and the decision whether a task needs one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from agentfarm.agents._agent import Agent, Budget
from agentfarm.agents._handover import bounded_list, handover
from agentfarm.agents._loop import run_agent
from agentfarm.agents._prompts import instructions, sections
from agentfarm.tools import ToolRegistry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentfarm.agents._agent import AgentResult, Caller, ToolMode
    from agentfarm.agents._plan import Plan

LISTED_FILES = 60
MAX_TOKENS = 1024  # of a reply; a model that repeats itself ends there
NOTES_TOKENS = 600

# Each stands as a whole word. Words that code uses for other things count only with
# a neighbour that settles it: form, page, menu, layout, window and screen.
_ENGLISH = r"""
    (?:graphical\ |web\ |mobile\ |touch\ )?user\ interfaces?
    | (?:graphical|web|mobile|touch)\ interfaces?
    | [GT]?UIs? | UX | front[- ]?ends? | usability
    | dashboards? | buttons? | checkbox(?:es)? | drop[- ]?downs? | tool\ ?bars?
    | side\ ?bars? | wireframes? | mock-?ups? | stylesheets?
    | web\ ?(?:pages?|sites?|apps?|applications?)
    | (?:landing|start|home|log-?in|sign-?up|settings|html|error)[- ]pages?
    | (?:web|html|log-?in|sign-?up|registration|contact|order|search|feedback|
         input|entry|booking|survey)[- ]forms?
    | forms?\ (?:fields?|inputs?|validation) | forms?\ (?:with|where|that\ asks)
    | (?:page|screen|grid|responsive|mobile)\ layouts? | layouts?\ of\ the\ (?:page|app)
    | (?:navigation|context|pop-?up|main|hamburger)\ menus? | menu\ bars?
    | (?:dialog|modal|pop-?up|main)\ (?:box(?:es)?|windows?)
    | (?:splash|start|home|log-?in|settings|game|full)[- ]screens? | touch\ ?screens?
    | tkinter | PyQt\d? | PySide\d? | wxPython | kivy | streamlit | gradio | ipywidgets
    | voil[aà] | curses
"""
_SWEDISH = r"""
    (?<!-)(?:användar|webb)?gränssnitt(?:et|en|s)?
    | webb(?:sid(?:a|an|or|orna)|plats(?:en|er|erna)?|app(?:en|ar|arna)?)
    | hemsid(?:a|an|or|orna)
    | (?:start|inloggnings|inställnings)sid(?:a|an|or|orna)
    | knapp(?:en|ar|arna)? | (?:\w+)?formulär(?:et|en)? | kryssrut(?:a|an|or|orna)
    | dialogrut(?:a|an|or|orna) | inmatningsfält(?:et|en)?
    | instrumentpanel(?:en|er|erna)? | instrumentbräd(?:a|an|or)
    | (?:rullgardins|navigations|huvud)meny(?:n|er|erna)?
    | skärm(?:bild(?:en|er)?|vy(?:n|er)?|layout(?:en)?) | sidlayout(?:en|er)?
    | användarvänlig(?:t|a|het|heten)?
"""
_WORD = re.compile(
    rf"(?<!\w)(?:{_ENGLISH}|{_SWEDISH})(?!\w)", re.IGNORECASE | re.VERBOSE
)
# At most two words, such as adjectives, stand between the denial and the thing. What
# there is none of ("there is no save button") is what a task may be about.
_DENIED = re.compile(
    r"\b(?<!there is )(?<!there are )(?<!finns )"
    r"(?:no|not\s+an?|without|non|utan|inget|ingen|inga|inte\s+(?:ett|en)|ej)"
    r"[\s-]+(?:[\w-]+\s+){0,2}$",
    re.IGNORECASE,
)
_LOOK_BACK_CHARS = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class UXDecision:
    """Whether a designer joins.

    Attributes:
        wanted: Whether one does.
        reason: Why or why not, in one sentence for people.
    """

    wanted: bool
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class UXNotes:
    """What the designer has for the executors.

    Attributes:
        text: Short notes; `""` where the designer came to no answer.
        result: What the requests came to.
    """

    text: str
    result: AgentResult


def needs_ux(task: str, plan: Plan | None = None) -> UXDecision:
    """Decide whether a task is about an interface, without asking a model.

    It is if the plan says ``interface: true``, or if the task has a word for
    something that people look at or click on, in English or Swedish: a user
    interface, GUI, front end, dashboard, web page, form with fields, button, dialog,
    a toolkit such as tkinter; gränssnitt, webbsida, formulär, knapp and their
    inflections. Full-screen text interfaces (TUI, curses) count, a plain
    command-line app does not. Only whole words count: neither "format" nor
    "platform" is a form. A word of many meanings counts only beside one that
    settles it: "login form" does, "in the form of a list" and "memory layout" do
    not; nor does an interface of code, such as a REST API. "No GUI" and "utan
    gränssnitt" are no wish for one.

    Args:
        task: In the user's words.
        plan: If there is one.
    """
    if plan is not None and plan.interface:
        return UXDecision(
            wanted=True, reason="The plan says that people will use an interface."
        )
    for match in _WORD.finditer(task):
        before = task[max(0, match.start() - _LOOK_BACK_CHARS) : match.start()]
        if not _DENIED.search(before):
            return UXDecision(
                wanted=True,
                reason=f"The task names something people see: {match.group()!r}.",
            )
    return UXDecision(
        wanted=False,
        reason="Neither the task nor the plan names an interface that people see.",
    )


@dataclass(frozen=True, kw_only=True)
class UXDesignerAgent:
    """Says how people will use what is built, before it is built.

    Attributes:
        tools: What it may look with; none by default.
        budget: What it may spend.
        tool_mode: How tools are offered; see `Agent`.
    """

    name: ClassVar[str] = "ux_designer"
    tools: ToolRegistry = field(default_factory=ToolRegistry)
    budget: Budget = field(default_factory=lambda: Budget(steps=6, tool_calls=8))
    tool_mode: ToolMode = "auto"

    async def design(
        self,
        task: str,
        plan: Plan,
        *,
        caller: Caller,
        files: Sequence[str] = (),
        context: str = "",
    ) -> UXNotes:
        """Write notes for the executors.

        Args:
            task: In the user's words.
            plan: What will be done.
            caller: Who asks.
            files: Names of what is in the workspace.
            context: A block as `context_block` makes it.

        Raises:
            ProviderError: The model's server could not be asked.
        """
        agent = Agent(
            name=self.name,
            instructions=instructions("ux_designer", context),
            tools=self.tools,
            task_type="reasoning",
            budget=self.budget,
            max_tokens=MAX_TOKENS,
            tool_mode=self.tool_mode,
        )
        question = sections(
            ("Task", task),
            ("Plan", plan.outline()),
            ("Files in the workspace", bounded_list(files, LISTED_FILES)),
        )
        result = await run_agent(agent, question, caller=caller)
        text = handover(result.text, NOTES_TOKENS) if result.ok else ""
        return UXNotes(text=text, result=result)
