"""How commands talk to the user: messages on stderr, progress, signals that ask to stop."""
