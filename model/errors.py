"""Errors in what a user gives to the model: options, captioners, vocabularies, images.

ModelError (a ValueError)
├── VocabularyError   words that cannot form a vocabulary, or a word outside it
├── CheckpointError   a directory or weight file that is missing, damaged, or of another architecture
└── OptionError       a search or training option out of range
PixelError (a ValueError): an image whose colours cannot be read
"""


class ModelError(ValueError):
    """Base class; the message says what was given, why it cannot be used and what to try."""


class VocabularyError(ModelError):
    """Words that cannot form a vocabulary, or a word outside it."""


class CheckpointError(ModelError):
    """A captioner directory or weight file that is missing, damaged or of another architecture."""


class OptionError(ModelError):
    """A search or training option out of range."""


class PixelError(ValueError):
    """An image whose colours cannot be read: its palette or transparency is damaged."""
