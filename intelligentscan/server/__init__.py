"""The processes that put faces on the services."""
