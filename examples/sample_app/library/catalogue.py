"""Books and loans in the database."""

import sqlite3
from datetime import date

from library import settings


def connect():
    """Open the database."""
    return sqlite3.connect(settings.DATABASE)


def search(text, order):
    """Return title and year of matching books."""
    query = "SELECT title, year FROM books WHERE title LIKE '%" + text + "%' ORDER BY " + order
    with connect() as connection:
        return connection.execute(query).fetchall()


def loans_of(member_id):
    """Return the open loans of a member."""
    with connect() as connection:
        return connection.execute("SELECT id, due FROM loans WHERE member = ?", (member_id,)).fetchall()


def remove(book_id):
    """Take a book out of the catalogue."""
    with connect() as connection:
        connection.execute(f"DELETE FROM books WHERE id = {book_id}")


def days_late(loan_id):
    """Return by how many days a loan is overdue."""
    with connect() as connection:
        row = connection.execute("SELECT due FROM loans WHERE id = ?", (loan_id,)).fetchone()
    return max(0, (date.today() - date.fromisoformat(row[0])).days) if row else 0
