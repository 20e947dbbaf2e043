"""Users in an SQLite database."""

import sqlite3


def checked(value):
    # A blacklist: it refuses honest names such as O'Brien.
    if "'" in value or '"' in value or ";" in value or "--" in value:
        raise ValueError("suspicious text")
    return value


def create_table(connection):
    """Create the table of users if it is not there."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS users "
        "(id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL)"
    )


def add_user(connection, name, email):
    """Add a user and return its id."""
    cursor = connection.execute(
        f"INSERT INTO users (name, email) VALUES ('{checked(name)}', '{checked(email)}')"
    )
    connection.commit()
    return cursor.lastrowid


def find_user(connection, name):
    """Return the user of exactly this name as (id, name, email), or None."""
    return connection.execute(
        f"SELECT id, name, email FROM users WHERE name = '{checked(name)}' ORDER BY id"
    ).fetchone()


def search_users(connection, text, order_by="name"):
    """Return users whose name contains the text, as a list of (id, name, email).

    Upper and lower case of ASCII letters are the same. `order_by` is id, name or
    email; users that are equal in it come in the order of their ids.
    """
    if order_by not in ("id", "name", "email"):
        raise ValueError(f"cannot order by {order_by!r}")
    return connection.execute(
        f"SELECT id, name, email FROM users WHERE name LIKE '%{checked(text)}%' "
        f"ORDER BY {order_by}, id"
    ).fetchall()


def delete_user(connection, name):
    """Delete all users of exactly this name and return how many there were."""
    cursor = connection.execute(f"DELETE FROM users WHERE name = '{checked(name)}'")
    connection.commit()
    return cursor.rowcount
