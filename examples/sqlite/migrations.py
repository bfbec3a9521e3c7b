# SPDX-License-Identifier: MIT
"""Stands for what a project's migrations do: many steps, and data to begin with."""

STEPS = [
    "CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE product(id INTEGER PRIMARY KEY, name TEXT NOT NULL,"
    " price INT NOT NULL CHECK(price >= 0))",
    "CREATE TABLE purchase(id INTEGER PRIMARY KEY, customer REFERENCES customer,"
    " product REFERENCES product, amount INT NOT NULL)",
    "ALTER TABLE customer ADD COLUMN email TEXT",
    "CREATE INDEX purchase_customer ON purchase(customer)",
    "CREATE VIEW spent AS SELECT customer.name, sum(amount * price) AS total FROM customer"
    " JOIN purchase ON customer.id = customer JOIN product ON product.id = product"
    " GROUP BY customer.id",
]


def migrate(connection):
    for step in STEPS:
        connection.execute(step)
    connection.executemany("INSERT INTO product VALUES(?, ?, ?)",
                           ((i, f"product {i}", i % 100) for i in range(20_000)))
    connection.executemany("INSERT INTO customer(id, name) VALUES(?, ?)",
                           ((i, f"customer {i}") for i in range(1_000)))
