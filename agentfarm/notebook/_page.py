"""An executed notebook as one HTML page that loads nothing."""

from __future__ import annotations

import copy
from typing import Any

_PLOTLY = "application/vnd.plotly.v1+json"

# JupyterLab's look without what its template fetches from other hosts: require.js,
# MathJax, Mermaid and the widget manager.
_TEMPLATE = """
{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}
{%- if resources.plotly_js -%}<script>{{ resources.plotly_js }}</script>{%- endif -%}
{%- endblock html_head_js -%}
{%- block jupyter_widgets -%}{%- endblock jupyter_widgets -%}
{%- block html_head_js_mathjax -%}{%- endblock html_head_js_mathjax -%}
{%- block html_head_js_mermaidjs -%}{%- endblock html_head_js_mermaidjs -%}
"""


def to_page(notebook: Any, *, title: str) -> str:
    """Render a notebook (an nbformat node, which is not changed) as HTML.

    Plotly figures draw from one copy of plotly.js in the page's head.
    """
    from nbconvert import HTMLExporter

    shown = copy.deepcopy(notebook)
    charts = _convert_charts(shown)
    # nbconvert says that it is typed, but this constructor is not.
    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="lab", raw_template=_TEMPLATE
    )
    resources = {"metadata": {"name": title}, "plotly_js": ""}
    if charts:
        from plotly.offline import get_plotlyjs

        resources["plotly_js"] = get_plotlyjs()
    body, _ = exporter.from_notebook_node(shown, resources=resources)
    return str(body)


def _convert_charts(notebook: Any) -> int:
    """Give charts an HTML form, which nbconvert prefers; returns their number."""
    charts = 0
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            figure = output.get("data", {}).get(_PLOTLY)
            if figure is not None:
                charts += 1
                output.data["text/html"] = _chart(figure, f"chart-{charts}")
    return charts


def _chart(figure: dict[str, Any], div_id: str) -> str:
    from plotly.io import to_html

    return str(
        to_html(
            {"data": figure["data"], "layout": figure["layout"]},
            config={"responsive": True, "displaylogo": False},
            include_plotlyjs=False,
            full_html=False,
            div_id=div_id,
            # It was valid when it was shown, perhaps by another Plotly.
            validate=False,
        )
    )
