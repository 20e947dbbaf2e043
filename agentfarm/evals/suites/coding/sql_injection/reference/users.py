"""Users in an SQLite database."""

import sqlite3


def create_table(connection):
    """Create the table of users if it is not there."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS users "
        "(id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL)"
    )


def add_user(connection, name, email):
    """Add a user and return its id."""
    cursor = connection.execute(
        "INSERT INTO users (name, email) VALUES (?, ?)", (name, email)
    )
    connection.commit()
    return cursor.lastrowid


def find_user(connection, name):
    """Return the user of exactly this name as (id, name, email), or None."""
    return connection.execute(
        "SELECT id, name, email FROM users WHERE name = ? ORDER BY id", (name,)
    ).fetchone()


def search_users(connection, text, order_by="name"):
    """Return users whose name contains the text, as a list of (id, name, email).

    Upper and lower case of ASCII letters are the same. `order_by` is id, name or
    email; users that are equal in it come in the order of their ids.
    """
    if order_by not in ("id", "name", "email"):
        raise ValueError(f"cannot order by {order_by!r}")
    for special in ("!", "%", "_"):
        text = text.replace(special, "!" + special)
    return connection.execute(
        "SELECT id, name, email FROM users WHERE name LIKE ? ESCAPE '!' "
        f"ORDER BY {order_by}, id",
        (f"%{text}%",),
    ).fetchall()


def delete_user(connection, name):
    """Delete all users of exactly this name and return how many there were."""
    cursor = connection.execute("DELETE FROM users WHERE name = ?", (name,))
    connection.commit()
    return cursor.rowcount
