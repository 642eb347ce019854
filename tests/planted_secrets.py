"""Secrets that look real and are worth nothing, made at run time from parts, and how to find them again in bytes."""

import base64
import json
import random
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

_LETTERS = string.ascii_letters + string.digits
_UPPER = string.ascii_uppercase + string.digits
_ARMOUR = "RSA " + "PRIVATE" + " KEY"


def _text(chance: random.Random, size: int, alphabet: str = _LETTERS) -> str:
    return "".join(chance.choice(alphabet) for _ in range(size))


@dataclass(frozen=True)
class Planted:
    """One secret of each kind; which ones depends on the seed alone.

    Attributes:
        values: what must not be found anywhere, by kind; longer ones in parts.
    """

    seed: int
    values: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        chance = random.Random(self.seed)
        pem = ["M" + "II" + _text(chance, 61, _LETTERS + "+/"), *(_text(chance, 64, _LETTERS + "+/") for _ in range(3))]
        head, body = ("ey" + "J" + _text(chance, 24) for _ in range(2))
        self.values.update(
            {
                "password": ["pW" + _text(chance, 8)],
                "aws_id": ["AK" + "IA" + _text(chance, 16, _UPPER)],
                "aws_secret": [_text(chance, 40, _LETTERS + "+/")],
                "github": ["gh" + "p_" + _text(chance, 36)],
                "slack": ["xo" + "xb-" + _text(chance, 12, string.digits) + "-" + _text(chance, 24)],
                "jwt": [f"{head}.{body}.{_text(chance, 32)}"],
                "google": ["AI" + "za" + _text(chance, 35)],
                "stripe": ["sk_" + "live_" + _text(chance, 24)],
                "pem": [*pem, _text(chance, 22) + "=="],
                "basic_auth": [_text(chance, 14)],
                "git_remote": ["gh" + "s_" + _text(chance, 36)],
                "api_key": [_text(chance, 32)],
                "connection": [_text(chance, 12)],
            }
        )

    def __getitem__(self, kind: str) -> str:
        return "\n".join(self.values[kind])

    @property
    def private_key(self) -> str:
        """A private key of several lines in its armour."""
        return f"-----BEGIN {_ARMOUR}-----\n{self['pem']}\n-----END {_ARMOUR}-----"

    @property
    def sentences(self) -> list[str]:
        """One text for each kind, as it may stand in a message or a value, that says by its form what it holds."""
        return [
            f"password={self['password']}9x1Y",
            f"id {self['aws_id']}",
            f"aws_secret_access_key={self['aws_secret']}",
            f"pushes with {self['github']} to the host",
            f"posts as {self['slack']}",
            f"Authorization: Bearer {self['jwt']}",
            f"maps?key={self['google']}",
            f"charges {self['stripe']}",
            self.private_key,
            f"reads https://robot:{self['basic_auth']}@db.example.org/x",
            f"clones https://x-access-token:{self['git_remote']}@git.example.org/a/b.git",
            f"api_key: {self['api_key']}",
            f"Server=db;User Id=sa;Password={self['connection']};Encrypt=true",
        ]

    @property
    def source(self) -> str:
        """Python in which every kind stands on or beside a line that engines report."""
        return f'''\
import subprocess
import requests
password = "{self["password"]}"
subprocess.call("login " + name, shell=True)  # again {self["password"]}
AWS_ID = "{self["aws_id"]}"
aws_secret_access_key = "{self["aws_secret"]}"
subprocess.call("aws {self["aws_id"]} " + name, shell=True)
subprocess.call("push {self["github"]} " + name, shell=True)
subprocess.call("say {self["slack"]} " + name, shell=True)
eval("who('{self["jwt"]}')")
requests.get("https://maps.example.org/?key={self["google"]}", verify=False)
subprocess.call("pay {self["stripe"]} " + name, shell=True)
eval(name)
signing = """{self.private_key}"""
eval(name)
requests.get("https://robot:{self["basic_auth"]}@db.example.org/", verify=False)
api_key = "{self["api_key"]}"
exec("connect('Server=db;User Id=sa;Password={self["connection"]};Encrypt=true')")
exec("clone('https://x-access-token:{self["git_remote"]}@git.example.org/a/b.git')")
def login(user, password="{self["password"]}"):
    assert user
'''

    def forms(self) -> Iterator[tuple[str, bytes]]:
        """Yield every kind with the bytes that it may be found as: plain, and in the usual encodings."""
        for kind, parts in self.values.items():
            for part in parts:
                plain = part.encode()
                spelled = {plain, quote(part, safe="").encode(), json.dumps(part)[1:-1].encode()}
                spelled.add(json.dumps(part).replace("/", "\\/")[1:-1].encode())
                for shift in range(3):  # base64 looks different at each of the three places where a text may start
                    coded = base64.b64encode(b"\0" * shift + plain)
                    spelled.add(coded[4 if shift else 0 : -4])
                yield from ((kind, form) for form in spelled if len(form) >= 8)

    def found_in(self, places: Iterable[tuple[str, bytes]]) -> list[tuple[str, str]]:
        """Return where (and which kind) something is found, of named bytes."""
        forms = list(self.forms())
        return sorted({(place, kind) for place, data in places for kind, form in forms if form in data})


def files_below(*roots: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of every file, names of files and folders among the bytes."""
    for root in roots:
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            yield name, name.encode() + b"\n" + (path.read_bytes() if path.is_file() else b"")
