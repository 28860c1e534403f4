"""The verbs. Each module is a command: `shardtalk caption` is `python -m jobs.caption`."""

from jobs import early

__version__ = "0.1.0"

if early.is_run_as_module():
    early.end_at_signals("shardtalk")
