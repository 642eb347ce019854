"""Identifiers that are easy to swap, each with a type of its own."""

from typing import NewType

ExperimentId = NewType("ExperimentId", str)
RunId = NewType("RunId", str)
ModelName = NewType("ModelName", str)
Digest = NewType("Digest", str)
