import json
import sys
from pathlib import Path


def main():
    arguments = sys.argv[1:]
    path = Path("todo.json")
    if arguments[:1] == ["--file"]:
        path = Path(arguments[1])
        arguments = arguments[2:]
    try:
        tasks = json.loads(path.read_text("utf-8")) if path.exists() else []
    except ValueError:
        sys.exit("cannot read the file")
    match arguments:
        case ["add", text] if text.strip():
            # The number of tasks is not the last id once one was removed.
            task = [len(tasks) + 1, text.strip(), False]
            tasks.append(task)
            print(f"Added {task[0]}: {task[1]}")
        case ["list", *options]:
            shown = [task for task in tasks if not (task[2] and options)]
            for number, text, done in shown:
                print(f"{number} [{'x' if done else ' '}] {text}")
            if not shown:
                print("Nothing to do")
        case ["done" | "remove" as command, number]:
            found = [task for task in tasks if str(task[0]) == number]
            if not found:
                sys.exit(f"No task {number}")
            if command == "done":
                found[0][2] = True
                print(f"Done {number}: {found[0][1]}")
            else:
                tasks.remove(found[0])
                print(f"Removed {number}: {found[0][1]}")
        case _:
            sys.exit("usage: todo.py [--file PATH] add|list|done|remove")
    path.write_text(json.dumps(tasks), "utf-8")


main()
