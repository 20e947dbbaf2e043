import json
import sqlite3

import pytest
from users import add_user, create_table, delete_user, find_user, search_users

ATTACKS = (
    "x' OR '1'='1",
    "x'; DROP TABLE users; --",
    "' UNION SELECT 1, 'a', 'b' --",
    "x'), ('y', 'z",
    '" OR ""="',
    "\\' OR 1=1 --",
)


def plain(value):
    return json.loads(json.dumps(value))


def database(*names):
    """A database with users of these names; their ids begin at 1."""
    connection = sqlite3.connect(":memory:")
    create_table(connection)
    connection.executemany(
        "INSERT INTO users (name, email) VALUES (?, ?)",
        [(name, f"{9 - number}@example.org") for number, name in enumerate(names)],
    )
    connection.commit()
    return connection


def names_in(connection):
    return [name for (name,) in connection.execute("SELECT name FROM users ORDER BY id")]


def found(connection, *arguments):
    return [name for _, name, _ in plain(search_users(connection, *arguments))]


def test_it_adds_finds_and_deletes():
    connection = database()
    assert plain(add_user(connection, "Ada", "ada@example.org")) == 1
    assert plain(add_user(connection, "Åsa", "asa@example.org")) == 2
    assert plain(find_user(connection, "Ada")) == [1, "Ada", "ada@example.org"]
    assert plain(find_user(connection, "Åsa")) == [2, "Åsa", "asa@example.org"]
    assert find_user(connection, "Bo") is None
    assert plain(delete_user(connection, "Ada")) == 1
    assert plain(delete_user(connection, "Ada")) == 0
    assert names_in(connection) == ["Åsa"]


def test_search_sorts():
    connection = database("Bo", "Ada", "abo")
    assert found(connection, "") == ["Ada", "Bo", "abo"]
    assert found(connection, "BO") == ["Bo", "abo"]
    assert found(connection, "", "id") == ["Bo", "Ada", "abo"]
    assert found(connection, "", "email") == ["abo", "Ada", "Bo"]


def test_any_name_is_added():
    connection = database()
    for number, name in enumerate(("O'Brien", *ATTACKS), start=1):
        assert plain(add_user(connection, name, f"{name}@example.org")) == number
    assert names_in(connection) == ["O'Brien", *ATTACKS]
    emails = connection.execute("SELECT email FROM users WHERE id = 2").fetchone()
    assert emails == (f"{ATTACKS[0]}@example.org",)


def test_find_matches_the_name_only():
    connection = database("Ada", "O'Brien")
    for attack in ATTACKS:
        assert find_user(connection, attack) is None, attack
    assert plain(find_user(connection, "O'Brien"))[0] == 2
    connection = database("Ada", *ATTACKS)
    for number, attack in enumerate(ATTACKS, start=2):
        assert plain(find_user(connection, attack))[0] == number


def test_delete_deletes_the_name_only():
    connection = database("Ada", "Bo", ATTACKS[0], "O'Brien")
    for attack in ATTACKS[1:]:
        assert plain(delete_user(connection, attack)) == 0, attack
    assert plain(delete_user(connection, ATTACKS[0])) == 1
    assert plain(delete_user(connection, "O'Brien")) == 1
    assert names_in(connection) == ["Ada", "Bo"]


def test_search_takes_any_text():
    connection = database("Ada", "O'Brien")
    for attack in ATTACKS:
        assert found(connection, attack) == [], attack
    assert found(connection, "'") == ["O'Brien"]
    connection = database("Ada", *ATTACKS)
    assert found(connection, ATTACKS[0]) == [ATTACKS[0]]


def test_search_has_no_wildcards():
    connection = database("100%", "1000", "a_b", "axb", "back\\slash")
    assert found(connection, "0%") == ["100%"]
    assert found(connection, "%") == ["100%"]
    assert found(connection, "a_b") == ["a_b"]
    assert found(connection, "_") == ["a_b"]
    assert found(connection, "\\") == ["back\\slash"]


def test_order_by_is_a_column():
    connection = database("Ada", "Bo")
    bad = ("1; DROP TABLE users", "(SELECT email FROM users)", "name DESC", "", "rowid")
    for order_by in bad:
        with pytest.raises(ValueError):
            search_users(connection, "", order_by)
    assert names_in(connection) == ["Ada", "Bo"]
