"""From the command line, YAML files and keyword arguments to a dataclass of `configs`."""
