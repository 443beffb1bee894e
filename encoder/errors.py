"""What can be wrong with data or a model folder."""

from __future__ import annotations


class EncoderError(Exception):
    """Something given to the encoder cannot be used; the message says what was expected, what came and what to do.

    EncoderError
    ├── UnusableData      a log that nothing can be learned from, or values that are none
    └── UnusableModel     a model folder that is damaged, incomplete, of a newer version or for other data
    """


class UnusableData(EncoderError):
    """A log that nothing can be learned from, or that holds values that are none."""


class UnusableModel(EncoderError):
    """A model folder that is damaged, incomplete, of a newer version, or that does not fit the data."""
