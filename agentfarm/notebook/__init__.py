"""What a notebook shows, and notebooks executed without a person.

Figures lie in `agentfarm.notebook.figures` and live panels in
`agentfarm.notebook.panels`; they load Plotly, pandas and ipywidgets, which this
package leaves alone until they are needed.
"""

from __future__ import annotations

from agentfarm.notebook._report import Report, execute_notebook, execute_notebook_sync

__all__ = ["Report", "execute_notebook", "execute_notebook_sync"]
