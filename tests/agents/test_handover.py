"""What one agent hands to the next stays within its budget."""

import pytest

from agentfarm.agents._handover import (
    bounded_list,
    estimate_tokens,
    handover,
    shortened,
    shortened_diff,
)


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("abc", 1), ("abcd", 1), ("abcde", 2)]
)
def test_tokens_are_estimated_as_characters_by_four(text, tokens):
    assert estimate_tokens(text) == tokens


def test_a_short_text_is_handed_over_as_it_is():
    assert handover("  All done. \n", 10) == "All done."


def test_a_long_text_ends_with_a_sentence_and_says_that_it_was_cut():
    text = "First sentence here. Second sentence is here. " + "Third goes on " * 50
    cut = handover(text, 22)
    assert cut.startswith("First sentence here. Second sentence is here. [cut here: ")
    assert len(cut) <= 22 * 4


def test_a_number_is_no_end_of_a_sentence():
    cut = handover("Version 3.11 and 3.12 work as " + "wanted " * 100, 20)
    assert cut.partition(" [cut")[0].endswith(("wanted", "as"))


@pytest.mark.parametrize("tokens", [-1, 0, 1, 2, 5, 8, 9, 10, 50, 200])
@pytest.mark.parametrize(
    "text",
    ["x" * 3000, "word " * 600, "A sentence. " * 250, "line\n" * 600, "…" * 3000],
)
def test_no_budget_is_ever_exceeded(text, tokens):
    limit = max(0, tokens) * 4
    assert len(handover(text, tokens)) <= limit
    assert len(shortened(text, tokens)) <= limit
    assert len(shortened_diff(text, tokens)) <= limit


def test_what_was_left_out_is_counted():
    cut = handover("word " * 600, 50)
    kept, _, rest = cut.partition(" [cut here: ")
    assert len(kept) + int(rest.split()[0]) == len(("word " * 600).strip())


def test_evidence_keeps_both_ends():
    cut = shortened("BEGIN " + "x" * 1000 + " END", 40)
    assert cut.startswith("BEGIN")
    assert cut.endswith("END")
    assert "characters left out" in cut


def diff(name: str, lines: int) -> str:
    body = "".join(f"+line {number} of {name}\n" for number in range(lines))
    return (
        f"diff --git a/{name} b/{name}\n--- a/{name}\n+++ b/{name}\n@@ -0,0 @@\n{body}"
    )


def test_each_file_of_a_diff_keeps_head_and_tail_and_short_files_stay_whole():
    cut = shortened_diff(diff("big.py", 400) + diff("small.py", 3), 200)
    assert len(cut) <= 800
    assert "diff --git a/big.py" in cut
    assert "+line 399 of big.py" in cut
    assert "characters left out" in cut
    assert diff("small.py", 3).strip() in cut


def test_a_diff_without_git_headers_is_split_too():
    plain = "".join(diff(name, 200).partition("\n")[2] for name in ("one.py", "two.py"))
    cut = shortened_diff(plain, 150)
    for name in ("one.py", "two.py"):
        assert f"+++ b/{name}" in cut
        assert f"+line 199 of {name}" in cut


def test_files_without_room_are_counted():
    cut = shortened_diff("".join(diff(f"f{n}.py", 20) for n in range(50)), 100)
    assert len(cut) <= 400
    assert cut.endswith("[… 47 more files left out …]")


def test_a_list_is_bounded():
    assert bounded_list(["a", "b"], 2) == "- a\n- b"
    assert bounded_list(["a", "b", "c", "d"], 2) == "- a\n- b\n- and 2 more"
