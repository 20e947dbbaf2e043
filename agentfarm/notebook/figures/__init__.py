"""Charts of evaluations: pure functions from a frame to a Plotly figure.

Every function takes the frame that `agentfarm.evals.samples_frame`,
`requests_frame` or `runs_frame` returns, whole or filtered, and never changes it.
The same frame gives the same figure, byte for byte. A value that is unknown is
left out and counted below the title, never drawn as zero. A frame without rows
gives a figure that says what to do next.

The colours are Okabe and Ito's, which people with colour blindness tell apart
(https://jfly.uni-koeln.de/color/), and the background is transparent, so that a
figure reads on a light page and on a dark one.
"""

from __future__ import annotations

from agentfarm.notebook.figures._latency import latency_histogram, ttft
from agentfarm.notebook.figures._scores import score_by_run, score_by_task
from agentfarm.notebook.figures._tokens import (
    tokens_per_agent,
    tokens_per_second_over_time,
)

__all__ = [
    "latency_histogram",
    "score_by_run",
    "score_by_task",
    "tokens_per_agent",
    "tokens_per_second_over_time",
    "ttft",
]
