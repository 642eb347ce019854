"""One use case per method; the only place where steps are put in order."""
