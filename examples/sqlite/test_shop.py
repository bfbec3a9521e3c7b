# SPDX-License-Identifier: MIT
"""Tests that change the same database as they like: none sees another's changes.

Run them with: pytest examples/sqlite
"""

import sqlite3
import threading

import pytest


def test_a_purchase_shows_in_what_was_spent(db):
    db.execute("INSERT INTO purchase(customer, product, amount) VALUES(7, 42, 3)")
    assert db.execute("SELECT total FROM spent WHERE name = 'customer 7'").fetchone() == (126,)


def test_there_are_no_purchases_to_begin_with(db):
    assert db.execute("SELECT count(*) FROM purchase").fetchone() == (0,)


def test_everything_may_be_deleted(db):
    db.execute("DELETE FROM product")
    db.execute("DROP TABLE customer")
    db.commit()
    assert db.execute("SELECT count(*) FROM product").fetchone() == (0,)


def test_everything_is_there(db):
    assert db.execute("SELECT count(*) FROM product").fetchone() == (20_000,)
    assert db.execute("SELECT count(*) FROM customer").fetchone() == (1_000,)


def test_a_price_cannot_be_negative(db):
    with pytest.raises(sqlite3.IntegrityError):
        db.execute("UPDATE product SET price = -1 WHERE id = 1")


@pytest.mark.parametrize("number", range(50))
def test_each_case_has_its_own(db, number):
    db.execute("UPDATE product SET price = ?", (number,))
    db.commit()
    assert db.execute("SELECT DISTINCT price FROM product").fetchall() == [(number,)]


def test_the_program_under_test_opens_it_by_its_uri(db_uri):
    """Threads and several connections, as in the program itself."""

    def buy(customer):
        connection = sqlite3.connect(db_uri, uri=True, timeout=10)
        connection.execute("INSERT INTO purchase(customer, product, amount) VALUES(?, 1, 1)",
                           (customer,))
        connection.commit()
        connection.close()

    threads = [threading.Thread(target=buy, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    connection = sqlite3.connect(db_uri, uri=True)
    assert connection.execute("SELECT count(DISTINCT customer) FROM purchase").fetchone() == (8,)
    connection.close()


def test_a_test_may_travel_in_time_itself(db):
    db.execute("SELECT cow_snapshot('before')")
    db.execute("DELETE FROM product")
    db.commit()
    db.execute("SELECT cow_rollback('before')")
    assert db.execute("SELECT count(*) FROM product").fetchone() == (20_000,)
