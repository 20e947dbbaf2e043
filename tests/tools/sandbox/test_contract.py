"""How a result reads, for people and for scripts."""

import json
from io import StringIO

from rich.console import Console

from agentfarm.tools.sandbox import SandboxFile, SandboxResult

RESULT = SandboxResult(
    exit_code=1,
    stdout="<b>out</b> [red]\n",
    stderr="err\n",
    stderr_truncated=True,
    duration_s=1.234,
    oom_killed=True,
    files={"a": SandboxFile(content=b"\xff1")},
    omitted={"link": "not a regular file"},
)


def test_the_summary_names_what_is_out_of_the_ordinary():
    assert RESULT.summary == (
        "exit 1 after 1.23 s, out of memory, stderr cut, 1 files, 1 left behind"
    )
    assert SandboxResult(exit_code=0).summary == "exit 0 after 0.00 s"
    late = SandboxResult(exit_code=None, timed_out=True, duration_s=2)
    assert late.summary == "timed out after 2.00 s"
    assert not late.ok


def test_output_is_shown_as_it_is_and_never_as_markup():
    console = Console(file=StringIO(), width=80)
    console.print(RESULT)
    assert "<b>out</b> [red]\nerr\n" in console.file.getvalue()
    html = RESULT._repr_html_()
    assert "&lt;b&gt;out&lt;/b&gt; [red]" in html
    assert "<b>out" not in html


def test_as_json_it_has_sizes_and_no_contents():
    shown = json.loads(json.dumps(RESULT.to_dict()))
    assert shown["files"] == {"a": 2}
    assert shown["omitted"] == {"link": "not a regular file"}
    assert shown["exit_code"] == 1
    assert RESULT.files["a"].text == "\\xff1"
