"""What can be wrong with what a user hands to the model.

ModelError (a ValueError)
├── VocabularyError   words that cannot make a vocabulary, a token outside it
├── CheckpointError   a directory or weight file that is missing, damaged, or of another architecture
└── OptionError       a search or training option out of range
PixelError (a ValueError): an image whose colours cannot be read
"""


class ModelError(ValueError):
    """The base: what the user gave, why it cannot be used, what to try."""


class VocabularyError(ModelError):
    """Words that cannot make a vocabulary, or a token that is not in it."""


class CheckpointError(ModelError):
    """A captioner directory or weight file that is missing, damaged or of another architecture."""


class OptionError(ModelError):
    """A search or training option out of range."""


class PixelError(ValueError):
    """An image whose colours cannot be read: its palette or transparency is damaged."""
