"""Errors in what a user gives to the model: options, captioners, vocabularies, images.

ModelError (a ValueError)
├── VocabularyError   words that cannot form a vocabulary, or a word outside it
├── CheckpointError   a directory or weight file that is missing, damaged, or of another architecture
└── OptionError       an option that does not fit the network, the captioners or the machine; a ConfigError, too
PixelError (a ValueError): an image whose colours cannot be read
"""

from configs.errors import ConfigError


class ModelError(ValueError):
    """Base class; the message says what was given, why it cannot be used and what to try."""


class VocabularyError(ModelError):
    """Words that cannot form a vocabulary, or a word outside it."""


class CheckpointError(ModelError):
    """A captioner directory or weight file that is missing, damaged or of another architecture."""


class OptionError(ModelError, ConfigError):
    """An option that does not fit the network, the captioners or the machine. A value that no network and no machine
    could take is a ConfigError already when the configuration is made."""


class PixelError(ValueError):
    """An image whose colours cannot be read: its palette or transparency is damaged."""
