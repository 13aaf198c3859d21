"""Every error this package raises on purpose.

    PocketPriorError
    ├── UsageError                 exit 2: the call itself is wrong
    │   ├── UnknownNameError       a task, runtime, model ... that does not exist; lists those that do
    │   └── MissingExtraError      an optional dependency is not installed; names the extra
    ├── PhotoError                 exit 1: an image file cannot be read, understood or written
    │   ├── PhotoReadError         truncated, empty, not an image, unreadable
    │   ├── PhotoTooLargeError     more pixels than the limit allows
    │   ├── PhotoUnsupportedError  a kind of image that cannot be restored faithfully (animation, ...)
    │   └── PhotoWriteError        disk full, read-only folder, output exists
    ├── PackError                  exit 1: a pack folder or its manifest is wrong
    │   ├── PackVersionError       made for another format version
    │   └── PackTamperedError      a file does not have the recorded hash, or a golden output differs
    ├── GraphError                 exit 1: a graph was given or returned the wrong arrays (name, dtype, shape, NaN)
    ├── CheckpointError            exit 1: a checkpoint is damaged or belongs to another model
    └── TrainingError              exit 1: data or run folder unusable, loss not finite

Each message says what was given, what was expected and what to do.
"""

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
    """Base of all errors raised on purpose; `exit_code` is what the command line returns for it."""

    exit_code = 1


class UsageError(PocketPriorError):
    """The call is wrong: an argument, an option, a combination of them."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is not one of the valid ones."""

    def __init__(self, kind: str, given: str, valid: Iterable[str]) -> None:
        """Name the kind of thing, what was given and what is valid."""
        super().__init__(f"unknown {kind} '{given}'; choose one of: {', '.join(valid)}")


class MissingExtraError(UsageError):
    """An optional dependency is missing."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        """Name the package, the extra that installs it, and what needs it."""
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed; "
            f"install it with: pip install 'pocketprior[{extra}]'"
        )


class PhotoError(PocketPriorError):
    """An image file cannot be used."""


class PhotoReadError(PhotoError):
    """The file is truncated, empty, not an image, or cannot be opened."""


class PhotoTooLargeError(PhotoError):
    """The image has more pixels than the limit."""


class PhotoUnsupportedError(PhotoError):
    """The image is of a kind that cannot be restored faithfully."""


class PhotoWriteError(PhotoError):
    """The result cannot be written."""


class PackError(PocketPriorError):
    """A pack folder or its manifest is wrong."""


class PackVersionError(PackError):
    """The pack was made for another version of the format."""


class PackTamperedError(PackError):
    """A file of the pack is not the file that was packed."""


class GraphError(PocketPriorError):
    """A graph got or returned arrays that do not fit its specification."""


class CheckpointError(PocketPriorError):
    """A checkpoint is damaged or belongs to another model."""


class TrainingError(PocketPriorError):
    """Training cannot start or go on."""
