"""The errors a user can meet, each with the exit code the command line ends with."""

from __future__ import annotations


class FFNError(Exception):
    """Base of all errors raised on purpose: the message says what, where and what to do."""

    exit_code = 1


class ConfigError(FFNError, ValueError):
    """A configuration key, value or layer pattern that cannot be used."""

    exit_code = 2


class TargetError(FFNError, ValueError):
    """A target that is unknown, misspelt, not built yet, or whose toolchain is missing."""

    exit_code = 2


class DataError(FFNError, ValueError):
    """Calibration or input data of the wrong name, shape, dtype, or not readable."""

    exit_code = 2


class OutputError(FFNError, OSError):
    """An output place that cannot be written."""

    exit_code = 2


class AccuracyError(FFNError):
    """An accuracy gate was missed."""

    exit_code = 3


class ModelError(FFNError, ValueError):
    """A model file that cannot be read or holds what is not supported."""

    exit_code = 4


class ArtifactError(FFNError, ValueError):
    """A compiled artefact that is damaged, incomplete or of a newer format."""

    exit_code = 4
