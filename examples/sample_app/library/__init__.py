"""The lending desk without its web face."""
