"""Fenced code becomes a file only where there is no doubt which file it is."""

import time

import pytest

from agentfarm.agents._fenced import fenced_files, without_fences

CODE = "x = 1\n\ny = 2"


@pytest.mark.parametrize(
    "text",
    [
        '```python title="a/x.py"\n{code}\n```',
        "```python filename=a/x.py\n{code}\n```",
        "```python file: a/x.py\n{code}\n```",
        "```python a/x.py\n{code}\n```",
        "```python:a/x.py\n{code}\n```",
        "```a/x.py\n{code}\n```",
        "```py {{title='a/x.py'}}\n{code}\n```",
        "```python\n# file: a/x.py\n{code}\n```",
        "```python\n# filename: `a/x.py`\n{code}\n```",
        "```js\n// File: a/x.py\n{code}\n```",
        "```html\n<!-- file: a/x.py -->\n{code}\n```",
        "```\n# fil: a/x.py\n{code}\n```",
        "**a/x.py**\n```python\n{code}\n```",
        "**a/x.py:**\n\n```python\n{code}\n```",
        "`a/x.py`\n```\n{code}\n```",
        "### a/x.py\n```python\n{code}\n```",
        "### `a/x.py`\n```python\n{code}\n```",
        "1. **`a/x.py`**:\n```python\n{code}\n```",
        "File: a/x.py\n~~~python\n{code}\n~~~",
        "**File: a/x.py**\n```python\n{code}\n```",
        "a/x.py:\r\n```python\r\n{code}\r\n```",
        "Here it is:\n\n  ```python a/x.py\n  x = 1\n\n  y = 2\n  ```\nDone.",
    ],
)
def test_a_named_block_is_a_file(text):
    assert fenced_files(text.format(code=CODE)) == {"a/x.py": f"{CODE}\n"}


@pytest.mark.parametrize(
    "text",
    [
        "No code at all.",
        "```python\n{code}\n```",
        "I changed x.py so:\n```python\n{code}\n```",
        "See **x.py** for it:\n```python\n{code}\n```",
        "```python x.py\n{code}",
        "```python x.py\n```",
        "```python x.py\n\n  \n```",
        "```diff x.py\n{code}\n```",
        "**x.py**\n```diff\n{code}\n```",
        "**x.py**\n```console\n{code}\n```",
        "```python /etc/x.py\n{code}\n```",
        "```python ../x.py\n{code}\n```",
        "```python a/../x.py\n{code}\n```",
        "```python .bashrc.sh\n{code}\n```",
        "```python C:\\x.py\n{code}\n```",
        "```python my file.py\n{code}\n```",
        "```python 3.11\n{code}\n```",
        "```python x.py and y.py\n{code}\n```",
        "```python x.py\n{code}\n# ... rest unchanged\n```",
        "```python x.py\n# ...\n{code}\n```",
        "```python x.py\n{code}\n    # existing code here\n```",
        "```js x.js\n// … \n{code}\n```",
        "``x.py`` and ```x.py```",
    ],
)
def test_what_is_in_doubt_is_no_file(text):
    assert fenced_files(text.format(code=CODE)) == {}


def test_ellipsis_in_code_leaves_nothing_out():
    text = "```python x.py\ndef f() -> None: ...\n# Wait...\nmore()\n```"
    assert list(fenced_files(text)) == ["x.py"]


def test_several_files_and_the_last_of_two_blocks_for_one():
    text = (
        "**a.py**\n```python\nold = 1\n```\nand\n```toml b.toml\nk = 1\n```\n"
        "Better:\n```python a.py\nnew = 1\n```"
    )
    assert fenced_files(text) == {"a.py": "new = 1\n", "b.toml": "k = 1\n"}


def test_a_longer_fence_may_hold_shorter_ones():
    text = "````markdown README.md\n# Use\n```sh\nrun\n```\n````"
    assert fenced_files(text) == {"README.md": "# Use\n```sh\nrun\n```\n"}


def test_a_name_before_one_block_does_not_name_the_next():
    text = "**a.py**\n```python\nx = 1\n```\n```python\ny = 1\n```"
    assert fenced_files(text) == {"a.py": "x = 1\n"}


def test_a_flood_of_files_is_no_answer():
    blocks = [f"```python f{number}.py\nx = 1\n```" for number in range(21)]
    assert len(fenced_files("\n".join(blocks[:20]))) == 20
    assert fenced_files("\n".join(blocks)) == {}


def test_text_without_its_code():
    text = "Done.\n\n```python x.py\nx = 1\n```\n\nIt works.\n```\nnever closed"
    assert without_fences(text) == "Done.\n\nIt works."
    assert without_fences("```\nall\n```") == ""


@pytest.mark.parametrize(
    "text",
    [
        "```python " + "a" * 100_000 + "\nx\n```",
        "```python " + "a/" * 50_000 + "\nx\n```",
        "```python " + " " * 100_000 + "\nx\n```",
        "_" * 100_000 + "\n```python\nx\n```",
        "```python x.py\n" + "\n" * 100_000 + "```",
        "```python x.py\n" + "# " * 50_000 + "\n```",
        "```\n" * 50_000,
    ],
)
def test_hostile_answers_cost_no_time(text):
    started = time.perf_counter()
    fenced_files(text)
    without_fences(text)
    assert time.perf_counter() - started < 2
