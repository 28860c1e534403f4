"""The commands. Each module here is one: `shardtalk caption` is `python -m jobs.caption`."""

from jobs.console import startup_signals

__version__ = "0.2.0"

if startup_signals.is_run_as_command():
    startup_signals.exit_on_signals("shardtalk")
