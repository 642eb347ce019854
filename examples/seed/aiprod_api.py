"""The bridge's name for our functions, so that scripts written for it run as they are."""

from intelligentscan import create_experiment, register_model

__all__ = ["create_experiment", "register_model"]
