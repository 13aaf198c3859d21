"""Every error this package raises on purpose; each message says what was given, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "INTERRUPTED",
    "CheckpointError",
    "GraphError",
    "MissingExtraError",
    "PackError",
    "PackTamperedError",
    "PackVersionError",
    "PhotoError",
    "PhotoReadError",
    "PhotoTooLargeError",
    "PhotoUnsupportedError",
    "PhotoWriteError",
    "PocketPriorError",
    "TrainingError",
    "UnknownNameError",
    "UsageError",
]

INTERRUPTED = 130  # exit code after Ctrl-C: 128 + SIGINT, as shells have it


class PocketPriorError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns: 1, for a wrong call 2."""

    exit_code = 1


class UsageError(PocketPriorError):
    """The call is wrong: an argument, an option, a combination of them."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A task, runtime, model ... that does not exist; the message lists those that do."""

    def __init__(self, kind: str, given: str, valid: Iterable[str]) -> None:
        super().__init__(f"unknown {kind} '{given}'; choose one of: {', '.join(valid)}")


class MissingExtraError(UsageError):
    """An optional dependency is not installed; the message names the extra that adds it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed; "
            f"install it with: pip install 'pocketprior[{extra}]'"
        )


class PhotoError(PocketPriorError):
    """An image file cannot be read, understood or written."""


class PhotoReadError(PhotoError):
    """The file is truncated, empty, not an image, or cannot be opened."""


class PhotoTooLargeError(PhotoError):
    """The image has more pixels than the limit."""


class PhotoUnsupportedError(PhotoError):
    """The image is of a kind that cannot be restored faithfully, such as an animation."""


class PhotoWriteError(PhotoError):
    """The result cannot be written: the disk is full, the folder read-only, the file exists already."""


class PackError(PocketPriorError):
    """A pack folder or its manifest is wrong."""


class PackVersionError(PackError):
    """The pack was made for another version of the format."""


class PackTamperedError(PackError):
    """A file of the pack has not the recorded hash, or a golden output differs."""


class GraphError(PocketPriorError):
    """A graph got or returned arrays that do not fit its specification: name, dtype, shape, NaN."""


class CheckpointError(PocketPriorError):
    """A checkpoint is damaged or belongs to another model."""


class TrainingError(PocketPriorError):
    """Training cannot start or go on: data or run folder unusable, loss not finite."""
