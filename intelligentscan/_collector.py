"""Holds Python's cyclic garbage collector back while a large document is built."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collector() -> Iterator[None]:
    """Keep the cyclic collector from running.

    Millions of new dictionaries and lists make it walk over all of them again and again, which costs more than parsing
    them; a parsed document has no cycles. The setting is the whole process's: two uses at once are harmless, because
    only the one that switched it off switches it on again.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            if not gc.get_freeze_count():
                # What is there goes to the oldest generation at once, instead of being walked over for each of them.
                gc.freeze()
                gc.unfreeze()
            gc.enable()
