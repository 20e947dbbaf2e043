"""A TODO list for the command line."""

import argparse
import json
import sys
from pathlib import Path


class TodoError(Exception):
    """What the user is told."""


class TodoList:
    """Tasks in a JSON file, with the next id."""

    def __init__(self, path):
        self.path = Path(path)
        self.next_id, self.tasks = 1, []
        if not self.path.exists():
            return
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            self.next_id, self.tasks = data["next_id"], data["tasks"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TodoError(f"Cannot read {self.path}: {error}") from error

    def save(self):
        """Write beside the file and move, so that it is whole at any time."""
        data = {"next_id": self.next_id, "tasks": self.tasks}
        beside = self.path.with_name(self.path.name + ".new")
        beside.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        beside.replace(self.path)

    def add(self, text):
        """Add an open task."""
        if not text.strip():
            raise TodoError("The text is empty")
        task = {"id": self.next_id, "text": text.strip(), "done": False}
        self.tasks.append(task)
        self.next_id += 1
        return task

    def find(self, task_id):
        """The task of an id."""
        for task in self.tasks:
            if task["id"] == task_id:
                return task
        raise TodoError(f"No task {task_id}")

    def done(self, task_id):
        """Mark a task as done."""
        task = self.find(task_id)
        task["done"] = True
        return task

    def remove(self, task_id):
        """Remove a task."""
        task = self.find(task_id)
        self.tasks.remove(task)
        return task

    def lines(self, only_open):
        """The tasks for people."""
        return [
            f"{task['id']} [{'x' if task['done'] else ' '}] {task['text']}"
            for task in self.tasks
            if not (only_open and task["done"])
        ]


def parse(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(prog="todo.py")
    parser.add_argument("--file", default="todo.json")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("add").add_argument("text")
    commands.add_parser("list").add_argument("--open", action="store_true")
    for name in ("done", "remove"):
        commands.add_parser(name).add_argument("id", type=int)
    return parser.parse_args(arguments)


def run(options):
    """Run one command; gives the lines to print."""
    todo = TodoList(options.file)
    if options.command == "list":
        return todo.lines(options.open) or ["Nothing to do"]
    if options.command == "add":
        task, verb = todo.add(options.text), "Added"
    elif options.command == "done":
        task, verb = todo.done(options.id), "Done"
    else:
        task, verb = todo.remove(options.id), "Removed"
    todo.save()
    return [f"{verb} {task['id']}: {task['text']}"]


def main(arguments=None):
    """Run the program; gives its exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8")
    try:
        print(*run(parse(arguments)), sep="\n")
    except TodoError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
