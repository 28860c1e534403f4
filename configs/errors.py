"""The error of an option that has a value it cannot have."""

from __future__ import annotations


class ConfigError(ValueError):
    """An option has a value that cannot be used; the message names the option and says what to try."""
