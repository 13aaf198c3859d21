"""Recordings: the same bytes for the same calls, and no damage goes unseen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pocketprior.core.arrays import Array
from pocketprior.core.errors import PackError, PackTamperedError, PackVersionError
from pocketprior.core.pack.store import read_arrays, write_arrays
from pocketprior.core.restore.reference import ABOUT, SEAL, ReferenceWriter, load
from support.references import record_pack

SHOTS = [((61, 130), 5, 1.0), ((33, 42), 6, 0.5)]


def test_holds_every_call_in_its_order(known: tuple[Path, Path]) -> None:
    recording = load(known[1])
    first, second = recording.about.cases
    assert [call.graph for call in first.calls["split"]][:4] == ["encode", "predict", "denoise", "denoise"]
    assert [call.graph for call in second.calls["fused"]] == ["encode", "fused"]
    call = first.calls["split"][2]
    assert set(call.inputs) == {"x", "base", "code", "t"}
    assert recording.named(call.inputs)["t"] == np.float32([1])
    assert recording.arrays[first.photo].shape == (61, 130, 3)


def test_equal_arrays_are_kept_once(known: tuple[Path, Path]) -> None:
    """The base of a photo goes into every step."""
    recording = load(known[1])
    calls = [call for call in recording.about.cases[1].calls["split"] if call.graph == "denoise"]
    assert len({call.inputs["base"] for call in calls}) == 1 < len(calls)


def test_the_same_calls_give_the_same_bytes(known: tuple[Path, Path], tmp_path: Path) -> None:
    record_pack(known[0], tmp_path / "again.npz", SHOTS)
    assert (tmp_path / "again.npz").read_bytes() == known[1].read_bytes()


def _text(change: Callable[[str], str], arrays: dict[str, Array]) -> None:
    text = change(arrays[ABOUT].tobytes().decode()).encode()
    arrays[ABOUT] = np.frombuffer(text, np.uint8)


def _resealed(change: Callable[[str], str], arrays: dict[str, Array]) -> None:
    """By someone who knows how it is sealed."""
    import hashlib

    _text(change, arrays)
    arrays[SEAL] = np.frombuffer(hashlib.sha256(arrays[ABOUT].tobytes()).digest(), np.uint8)


def _one_value(arrays: dict[str, Array]) -> None:
    key = next(key for key, array in sorted(arrays.items()) if array.dtype == np.float32)
    arrays[key] = arrays[key] + np.float32(1e-6)


def _without(name: str | None, arrays: dict[str, Array]) -> None:
    del arrays[name or next(key for key, array in sorted(arrays.items()) if array.dtype == np.float32)]


@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        (
            lambda a: _text(lambda t: t.replace('"strength": 0.5', '"strength": 0.6'), a),
            PackTamperedError,
            "its text was",
        ),
        (_one_value, PackTamperedError, "the array .* was changed"),
        (lambda a: _without(None, a), PackError, "lacks 1 of the arrays"),
        (lambda a: _without(SEAL, a), PackError, "is no reference made by"),
        (
            lambda a: _resealed(lambda t: t.replace('"format": 1', '"format": 7'), a),
            PackVersionError,
            "expected a reference of format 1, got format 7",
        ),
        (lambda a: _resealed(lambda t: t.replace('"seed"', '"sead"'), a), PackError, "unknown field 'sead'"),
        (lambda a: _resealed(lambda t: t[:-40], a), PackError, "not valid JSON"),
    ],
)
def test_a_changed_recording(damage: Callable[..., None], kind: type, words: str, known: tuple[Path, Path]) -> None:
    arrays = read_arrays(known[1])
    damage(arrays)
    write_arrays(known[1], arrays)
    with pytest.raises(kind, match=words):
        load(known[1])


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_recording(share: float, known: tuple[Path, Path]) -> None:
    whole = known[1].read_bytes()
    known[1].write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(PackError, match="cannot be read"):
        load(known[1])


def test_a_flipped_bit(known: tuple[Path, Path]) -> None:
    content = bytearray(known[1].read_bytes())
    content[len(content) // 2] ^= 1
    known[1].write_bytes(bytes(content))
    with pytest.raises(PackError):
        load(known[1])


def test_the_text_is_json_that_others_can_read(known: tuple[Path, Path]) -> None:
    tree = json.loads(read_arrays(known[1])[ABOUT].tobytes())
    assert (tree["format"], len(tree["cases"])) == (1, 2)


def test_a_place_that_cannot_be_written(known: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"nowhere.npz cannot be written: the folder does not exist"):
        ReferenceWriter().save(tmp_path / "no" / "nowhere.npz", load(known[1]).about)
