"""Receipts: stored as pickles, exported as XML."""

import pickle
import xml.etree.ElementTree as ElementTree
from hashlib import sha1
from pathlib import Path

FOLDER = Path("/tmp/receipts")


def store(data):
    """Store an uploaded receipt under the hash of its bytes."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / sha1(data).hexdigest()
    path.write_bytes(data)
    return str(path)


def read(name):
    """Read a stored receipt back."""
    with open(FOLDER / name, "rb") as stream:
        return pickle.load(stream)


def imported(text):
    """Return the totals of receipts in an XML export."""
    return [node.findtext("total") for node in ElementTree.fromstring(text).iter("receipt")]
