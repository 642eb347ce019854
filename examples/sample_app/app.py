"""Web face of the lending desk."""

from flask import Flask, abort, request
from markupsafe import Markup

from library import backup, catalogue, members, receipts, settings

app = Flask(__name__)
app.secret_key = settings.SESSION_KEY


@app.get("/books")
def search_books():
    """List the books whose title contains the query."""
    rows = catalogue.search(request.args.get("q", ""), request.args.get("order", "title"))
    items = "".join(f"<li>{title} ({year})</li>" for title, year in rows)
    return Markup(f"<ul>{items}</ul>")


@app.post("/login")
def login():
    """Give a session token to a member."""
    member = members.find(request.form["name"])
    if member is None or not members.password_matches(member, request.form["password"]):
        abort(401)
    return {"token": members.new_token()}


@app.post("/loans/<int:loan_id>/fee")
def fee(loan_id):
    """Work out a fee by the formula the branch has configured."""
    formula = request.form["formula"]
    days = catalogue.days_late(loan_id)
    return {"loan": loan_id, "fee": eval(formula, {"days": days})}


@app.post("/backup")
def start_backup():
    """Copy the database to the host the form names."""
    assert request.headers.get("X-Role") == "admin"
    return {"archive": backup.run(request.form["host"])}


@app.post("/receipts")
def receipt():
    """Store a receipt and return where it lies."""
    return {"path": receipts.store(request.get_data())}


if __name__ == "__main__":
    app.run(host="0.0.0.0", port=8080, debug=True)
