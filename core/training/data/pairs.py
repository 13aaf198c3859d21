"""Damaged photos with their clean partners, found in the folders of common data sets."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from PIL import Image

from ...errors import TrainingError, UnknownNameError, UsageError
from ...photo.io import is_photo
from ...photo.listing import LIST_NAME, listed_in

__all__ = ["CONVENTIONS", "Convention", "PairUse", "PhotoPair", "find_pairs", "is_paired"]

PairUse: TypeAlias = Literal["any", "non-commercial"]

USES: dict[PairUse, tuple[str, ...]] = {"any": ("any",), "non-commercial": ("any", "non-commercial")}
SPLITS = {
    "train": ("train", "train_c", "training", "our485"),
    "val": ("val", "val_c", "valid", "validation", "eval15"),
    "test": ("test", "test_a", "test_b", "test_c", "testing", "eval15"),
}
COLUMNS = ("file", "split", "role", "pair_gt", "use")
SHOWN = 5  # names in an error


class PhotoPair(NamedTuple):
    """Two photo files of the same scene and the same size."""

    damaged: Path
    clean: Path


@dataclass(frozen=True)
class Convention:
    """How a data set lays out its pairs.

    Two sibling folders, at any depth, or, with both names empty, a single folder. If the name of a damaged photo
    (without its suffix) matches `pattern`, `partner` is the name of its clean partner.
    """

    name: str
    damaged: str
    clean: str
    pattern: str = r"(.*)"
    partner: str = r"\1"

    def partner_of(self, name: str) -> str | None:
        """The clean partner's name for that of a damaged photo; None if the name does not match."""
        fits = re.fullmatch(self.pattern, name)
        return fits and fits.expand(self.partner)

    def __str__(self) -> str:
        folders = f"{self.damaged}/ -> {self.clean}/" if self.damaged else "one folder"
        return f"{self.name} ({folders}, names {self.pattern} -> {self.partner})"


# The first one that finds pairs is used, so a narrow pattern precedes a wide one with the same folders.
CONVENTIONS = (
    Convention("PocketPrior", "lq", "gt"),
    Convention("LOL", "low", "high"),
    Convention("Rain100", "", "", r"rain-(\d+)", r"norain-\1"),
    Convention("Rain100", "rainy", "gt", r"rain-(\d+)", r"norain-\1"),
    Convention("Rain100", "rainy", "gt"),
    Convention("Rain100", "rain/X2", "norain", r"(norain-\d+)x2"),
    Convention("Rain100", "rain", "norain", r"(?:no)?rain-(\d+)(?:x2)?", r"norain-\1"),
    Convention("RainDrop", "data", "gt", r"(\d+)_rain", r"\1_clean"),
    Convention("Snow100K", "synthetic", "gt"),
    Convention("RESIDE", "hazy", "clear", r"([^_]+)(?:_.*)?"),
    Convention("RESIDE", "hazy", "gt", r"([^_]+)(?:_.*)?"),
    Convention("GoPro", "blur", "sharp"),
    Convention("DPDD", "inputC", "target"),
    Convention("DPDD", "source", "target"),
    Convention("SIDD", "", "", r"((?:.*_)?)NOISY(_.*)", r"\1GT\2"),
    Convention("input and target", "input", "target"),
)


def find_pairs(folder: Path, split: str, *, use: PairUse = "any", whole: bool = False) -> list[PhotoPair]:
    """The pairs of a split ("train", "val", "test") under `folder`, sorted by the damaged file.

    With a `manifest.csv` in the folder or above it: its rows of that split under `folder` with the role lq and a
    partner in the column pair_gt, whose `use` is "any", so that weights may be released; use="non-commercial" adds
    those for research. Rows for evaluation only are never returned.

    Without one: by the first of `CONVENTIONS` that finds pairs. If the set has folders for its splits, these decide;
    otherwise every pair belongs to "train" and to "test". If it has no folder for "val", the last tenth of the
    training pairs (at least one) is held back for it, except with `whole`, for when "train" and "val" come from two
    folders: then each takes all pairs of its own. Raises UsageError if no pairs are found, TrainingError if files have
    no partner, or sizes differ.
    """
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    root = listed_in(folder)
    pairs = _by_list(root, folder, split, use) if root else _by_convention(folder, split, whole)
    _check_sizes(pairs)
    return [PhotoPair(_as_given(damaged, folder), _as_given(clean, folder)) for damaged, clean in pairs]


def is_paired(folder: Path) -> bool:
    """Whether `folder` holds pairs in one of the `CONVENTIONS`, even if some photos have no partner."""
    return _layout(folder) is not None


def _as_given(path: Path, folder: Path) -> Path:
    """The path in the form of the caller: starting with `folder` if it is inside."""
    inside = folder.resolve()
    return folder / path.relative_to(inside) if path.is_relative_to(inside) else path


def _by_list(root: Path, folder: Path, split: str, use: PairUse) -> list[PhotoPair]:
    rows = [row for row in _rows(root / LIST_NAME) if (root / row["file"]).is_relative_to(folder.resolve())]
    rows = [row for row in rows if (row["split"], row["role"]) == (split, "lq") and row["pair_gt"]]
    allowed = [row for row in rows if row["use"] in USES[use]]
    if not allowed:
        there = ", ".join(f"{count} for {kind}" for kind, count in sorted(Counter(row["use"] for row in rows).items()))
        raise UsageError(
            f"'{root / LIST_NAME}' lists no '{split}' pairs under '{folder}' for the use '{use}' (it lists: "
            f"{there or 'none'}); give another folder, or another use if the weights are not to be released"
        )
    pairs = sorted(PhotoPair(root / row["file"], root / row["pair_gt"]) for row in allowed)
    missing = [str(path.relative_to(root)) for pair in pairs for path in pair if not path.is_file()]
    if missing:
        raise TrainingError(f"'{root / LIST_NAME}' lists files that are not there: {_some(missing)}; restore them")
    return pairs


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = sorted(set(COLUMNS) - set(reader.fieldnames or ()))
        if missing:
            raise UsageError(f"'{path}' lacks the columns {', '.join(missing)}; add them to its first line")
        return list(reader)


def _layout(folder: Path) -> tuple[Convention, list[Path]] | None:
    """The first convention that finds pairs under `folder`, and the folders that they stand in."""
    folders = sorted(path for path in (folder, *folder.rglob("*")) if path.is_dir())
    for convention in CONVENTIONS:
        places = [place for place in folders if any(_pairs_in(place, convention))]
        if places:
            return convention, places
    return None


def _photos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_photo(path)) if folder.is_dir() else []


def _pairs_in(place: Path, convention: Convention) -> Iterator[PhotoPair]:
    """The pairs whose folders stand in `place`."""
    clean = {path.stem: path for path in _photos(place / convention.clean)}
    for path in _photos(place / convention.damaged):
        partner = convention.partner_of(path.stem)
        if partner in clean:
            yield PhotoPair(path, clean[partner])


def _by_convention(folder: Path, split: str, whole: bool) -> list[PhotoPair]:
    """The pairs of one split, from its own folders or held back from the training pairs."""
    found = _layout(folder)
    if found is None:
        tried = "; ".join(map(str, CONVENTIONS))
        raise UsageError(f"'{folder}' holds no pairs of photos in a layout known here; arrange it as one of: {tried}")
    convention, places = found
    own = {name: [place for place in places if _is_part(place.relative_to(folder), name)] for name in SPLITS}
    parted = any(own.values())
    sources = own[split] or (own["train"] if parted and split == "val" else [] if parted else places)
    if not sources:
        there = ", ".join(name for name, having in own.items() if having)
        raise UsageError(f"'{folder}' has folders for {there}, but none for '{split}'; choose one that it has")
    pairs = _complete(folder, sources, convention)
    if split == "test" or own["val"] or (whole and (split == "train" or not parted)):
        return pairs
    if len(pairs) < 2:
        raise UsageError(f"'{folder}' holds one pair, which cannot serve for both 'train' and 'val'; add more")
    held_back = max(1, len(pairs) // 10)
    return pairs[-held_back:] if split == "val" else pairs[:-held_back]


def _is_part(place: Path, split: str) -> bool:
    return any(part.lower() in SPLITS[split] for part in place.parts)


def _complete(folder: Path, places: Iterable[Path], convention: Convention) -> list[PhotoPair]:
    """Every pair in `places`. Raises TrainingError if a photo has no partner."""
    pairs, alone = list[PhotoPair](), set[Path]()
    for place in places:
        found = list(_pairs_in(place, convention))
        there = {*_photos(place / convention.damaged), *_photos(place / convention.clean)}
        alone |= there - {path for pair in found for path in pair}
        pairs += found
    if alone:
        names = _some([str(path.relative_to(folder)) for path in sorted(alone)])
        raise TrainingError(
            f"'{folder}' looks like {convention}, but {len(alone)} photos have no partner: {names}; "
            "add the missing partners, or take these photos out"
        )
    return sorted(pairs)


def _some(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _check_sizes(pairs: Iterable[PhotoPair]) -> None:
    """Raise TrainingError unless the photos of each pair have equal sizes; reads only the headers of the files."""
    unequal = []
    for pair in pairs:
        size, clean_size = map(_size, pair)
        if size != clean_size:
            unequal.append(f"{pair.damaged} ({size}) and {pair.clean.name} ({clean_size})")
    if unequal:
        raise TrainingError(f"the photos of {len(unequal)} pairs differ in size: {_some(unequal)}; crop them alike")


def _size(path: Path) -> str:
    try:
        with Image.open(path) as photo:
            return f"{photo.width} x {photo.height}"
    except OSError as error:
        raise TrainingError(f"'{path}' cannot be read as a photo ({error}); replace or remove the pair") from error
