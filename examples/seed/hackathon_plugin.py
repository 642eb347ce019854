"""The plugin's name for our helper object, so that scripts written for it run as they are."""

from intelligentscan import AIModelHelper

__all__ = ["AIModelHelper"]
