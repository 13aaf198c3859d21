"""Whatever is wrong with a call: one clear sentence, the right exit code, no file left or changed."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pocketprior.core.cli import main
from pocketprior.core.pack.manifest import FILE, Manifest
from support import packs
from support.photo_files import content, save

Arguments = list[str]
Make = Callable[[Path, Path], Arguments]  # (folder for photos, pack that may be damaged) -> arguments


# Photos.


def truncated(folder: Path, _: Path) -> Arguments:
    path = Path(save(folder / "cut.jpg", 200, 200))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return ["restore", str(path)]


def written(name: str, data: bytes) -> Make:
    def make(folder: Path, _: Path) -> Arguments:
        (folder / name).write_bytes(data)
        return ["restore", str(folder / name)]

    return make


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


BOMB = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")


def animated(folder: Path, _: Path) -> Arguments:
    frames = [Image.fromarray(packs.photo(16, 16, seed=i)) for i in range(3)]
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:])
    return ["restore", str(folder / "moving.webp")]


def missing(folder: Path, _: Path) -> Arguments:
    return ["restore", str(folder / "none.jpg")]


def dangling(folder: Path, _: Path) -> Arguments:
    (folder / "link.jpg").symlink_to(folder / "gone.jpg")
    return ["restore", str(folder / "link.jpg")]


def link_to_itself(folder: Path, _: Path) -> Arguments:
    (folder / "link.jpg").symlink_to(folder / "link.jpg")
    return ["restore", str(folder / "link.jpg")]


def fifo(folder: Path, _: Path) -> Arguments:
    os.mkfifo(folder / "pipe.jpg")
    return ["restore", str(folder / "pipe.jpg")]


def unreadable(folder: Path, _: Path) -> Arguments:
    if os.geteuid() == 0:  # may read everything but files like this
        return ["restore", "/proc/self/mem", "-o", str(folder / "out.png")]
    Path(save(folder / "a.png")).chmod(0)
    return ["restore", str(folder / "a.png")]


def folder_named_like_a_photo(folder: Path, _: Path) -> Arguments:
    (folder / "x.jpg").mkdir()
    return ["restore", str(folder / "x.jpg")]


def no_photos(folder: Path, _: Path) -> Arguments:
    (folder / "notes.txt").write_text("no photo")
    (folder / ".hidden.jpg").write_bytes(b"")
    return ["restore", str(folder)]


def no_match(folder: Path, _: Path) -> Arguments:
    save(folder / "a.jpg")
    return ["restore", str(folder / "*.png")]


# Results.


def with_photo(*options: str) -> Make:
    """restore a good photo with `options`; {folder} stands for its folder."""

    def make(folder: Path, _: Path) -> Arguments:
        return ["restore", save(folder / "a.png"), *(option.format(folder=folder) for option in options)]

    return make


def output_exists(folder: Path, _: Path) -> Arguments:
    save(folder / "a.restored.png")
    return ["restore", save(folder / "a.png")]


def comparison_exists(folder: Path, _: Path) -> Arguments:
    save(folder / "a.compare.png")
    return ["restore", save(folder / "a.png"), "--compare"]


def result_changed_since(folder: Path, _: Path) -> Arguments:
    old = save(folder / "a.restored.png")
    os.utime(old, (1, 1))
    return ["restore", save(folder / "a.png"), "--resume"]


def result_of_a_photo_that_is_gone(folder: Path, _: Path) -> Arguments:
    save(folder / "a.restored.png")
    return ["restore", str(folder / "a.png"), "--resume"]


def output_is_the_photo_by_a_link(folder: Path, _: Path) -> Arguments:
    (folder / "b.png").symlink_to(folder / "a.png")
    return ["restore", save(folder / "a.png"), "-o", str(folder / "b.png"), "--overwrite"]


def folder_onto_itself(folder: Path, _: Path) -> Arguments:
    save(folder / "a.png")
    return ["restore", str(folder), "-o", str(folder), "--overwrite"]


def output_is_another_photo(folder: Path, _: Path) -> Arguments:
    save(folder / "in/b.png")
    return ["restore", save(folder / "b.png"), str(folder / "in/b.png"), "-o", str(folder / "in"), "--overwrite"]


def two_photos_one_output(folder: Path, _: Path) -> Arguments:
    return ["restore", save(folder / "x/a.png"), save(folder / "y/a.png"), "-o", str(folder / "out")]


def file_for_two_photos(folder: Path, _: Path) -> Arguments:
    return ["restore", save(folder / "a.png"), save(folder / "b.png"), "-o", save(folder / "c.png"), "--overwrite"]


def output_below_a_file(folder: Path, _: Path) -> Arguments:
    (folder / "file").write_text("")
    return ["restore", save(folder / "a.png"), "-o", str(folder / "file/out.png")]


def output_is_read_only(folder: Path, _: Path) -> Arguments:
    if os.geteuid() == 0:  # may write everywhere but in file systems like this
        return ["restore", save(folder / "a.png"), "-o", "/proc/self/out.png"]
    (folder / "locked").mkdir(mode=0o500)
    return ["restore", save(folder / "a.png"), "-o", str(folder / "locked")]


def output_is_a_folder(folder: Path, _: Path) -> Arguments:
    (folder / "out/a.png").mkdir(parents=True)
    return ["restore", save(folder / "a.png"), "-o", str(folder / "out"), "--overwrite"]


# Packs.


def in_manifest(edit: Callable[[dict[str, object]], object]) -> Make:
    def make(folder: Path, pack: Path) -> Arguments:
        tree = json.loads((pack / FILE).read_text())
        edit(tree)
        (pack / FILE).write_text(json.dumps(tree))
        return ["restore", save(folder / "a.png")]

    return make


def in_graph(name: str, data: Callable[[bytes], bytes], *, hashed: bool) -> Make:
    """Change a graph file; hashed: the manifest knows the new hash, as if it had been packed so."""

    def make(folder: Path, pack: Path) -> Arguments:
        path = pack / f"{name}.onnx"
        path.write_bytes(data(path.read_bytes()))
        if hashed:
            packs.rewrite(pack, Manifest.load(pack))
        return ["restore", save(folder / "a.png")]

    return make


def flipped(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def without_graph_file(folder: Path, pack: Path) -> Arguments:
    (pack / "fused.onnx").unlink()
    return ["restore", save(folder / "a.png")]


def not_json(folder: Path, pack: Path) -> Arguments:
    (pack / FILE).write_text("{")
    return ["restore", save(folder / "a.png")]


def about_pack(command: str, damage: Make | None = None, *options: str) -> Make:
    def make(folder: Path, pack: Path) -> Arguments:
        if damage is not None:
            damage(folder, pack)
        return [command, str(pack), *options]

    return make


def bare(*arguments: str) -> Make:
    return lambda *_: list(arguments)


# what is wrong: (how to make it, exit code, words of the message)
CASES: dict[str, tuple[Make, int, str]] = {
    "truncated": (truncated, 1, "cut.jpg: the file is damaged or incomplete"),
    "empty": (written("empty.jpg", b""), 1, "empty.jpg"),
    "not an image": (written("text.jpg", b"this is text, not an image"), 1, "text.jpg"),
    "wrong magic": (written("magic.png", b"\x00" * 4096), 1, "magic.png"),
    "bomb": (written("bomb.png", BOMB), 1, "bomb.png"),
    "animated": (animated, 1, "moving.webp"),
    "missing photo": (missing, 1, "there is no such file; check the path"),
    "dangling link": (dangling, 1, "there is no such file"),
    "link to itself": (link_to_itself, 1, "link.jpg"),
    "unreadable": (unreadable, 1, "readable" if os.geteuid() else "/proc/self/mem: the file is damaged"),
    "fifo": (fifo, 1, "it is not a regular file"),
    "device": (bare("restore", "/dev/zero", "-o", "zero.png"), 1, "it is not a regular file"),
    "folder named like a photo": (folder_named_like_a_photo, 2, "has no photos in it; expected files with .avif"),
    "folder without photos": (no_photos, 2, "has no photos in it"),
    "pattern without match": (no_match, 2, "no file fits the pattern"),
    "no photo named": (bare("restore"), 2, "the following arguments are required: PHOTO"),
    "output exists": (output_exists, 1, "a.restored.png' exists; give another -o, --overwrite"),
    "comparison exists": (comparison_exists, 1, "a.compare.png' exists"),
    "photo newer than its result": (result_changed_since, 1, "was changed after its result"),
    "result without its photo": (result_of_a_photo_that_is_gone, 1, "there is no such file, only its result"),
    "output is the input": (with_photo("-o", "{folder}/a.png"), 2, "would be written over the photo"),
    "output is the input, overwrite": (with_photo("-o", "{folder}/a.png", "--overwrite"), 2, "over the photo"),
    "output is the input by a link": (output_is_the_photo_by_a_link, 2, "would be written over the photo"),
    "folder onto itself": (folder_onto_itself, 2, "would be written over the photo"),
    "output is another photo": (output_is_another_photo, 2, "would be written over the photo"),
    "two photos, one output": (two_photos_one_output, 2, "would both be written to"),
    "file for two photos": (file_for_two_photos, 2, "is a file, but several photos were given"),
    "output below a file": (output_below_a_file, 1, "is a file, not a folder; choose another -o"),
    "output is a folder": (output_is_a_folder, 1, "out/a.png' is a folder; give the name of a file"),
    "output in a read-only file system": (with_photo("-o", "/proc/out.png"), 1, "/proc/out.png: it cannot be written"),
    "output in a folder that is read-only": (output_is_read_only, 1, "cannot be written"),
    "output folder that cannot be made": (with_photo("-o", "/proc/none/"), 1, "'/proc/none' cannot be made"),
    "output of no format": (with_photo("-o", "{folder}/a.txt"), 2, "a.txt' cannot be written; name a file"),
    "output without a suffix": (with_photo("-o", "{folder}/out"), 2, "out' cannot be written; name a file"),
    "unknown task": (with_photo("--task", "colourise"), 2, "unknown task 'colourise'; choose one of: cleanup"),
    "unknown runtime": (
        with_photo("--runtime", "tpu"),
        2,
        "unknown runtime 'tpu'; choose one of: onnxruntime, openvino, replay",
    ),
    "runtime the pack is not for": (with_photo("--runtime", "replay"), 1, "has no graphs for replay; it has: onnx"),
    "strength above one": (with_photo("--strength", "1.5"), 2, "expected a strength from 0 (no texture) to 1, got 1.5"),
    "strength not a number": (with_photo("--strength", "nan"), 2, "got nan"),
    "strength a word": (with_photo("--strength", "much"), 2, "--strength: invalid float value: 'much'"),
    "seed below zero": (with_photo("--seed", "-1"), 2, "expected a seed from 0 to 2^64 - 1, got -1"),
    "seed too large": (with_photo("--seed", str(2**64)), 2, "expected a seed from 0 to 2^64 - 1"),
    "seed a fraction": (with_photo("--seed", "1.5"), 2, "--seed: invalid int value: '1.5'"),
    "tile too small": (with_photo("--tile", "16"), 2, "expected a tile of at least 76 pixels"),
    "tile a word": (with_photo("--tile", "big"), 2, "--tile: invalid int value: 'big'"),
    "memory a word": (with_photo("--max-memory", "lots"), 2, "invalid size 'lots'; give a number with MB"),
    "memory of an unknown unit": (with_photo("--max-memory", "3TB"), 2, "invalid size '3TB'"),
    "memory below zero": (with_photo("--max-memory=-1MB"), 2, "invalid size '-1MB'"),
    "too little memory": (with_photo("--max-memory", "20MB"), 2, "got a limit of 20 MiB"),
    "tile and memory": (with_photo("--tile", "128", "--max-memory", "1GB"), 2, "give one of them"),
    "overwrite and resume": (with_photo("--overwrite", "--resume"), 2, "not allowed with argument --overwrite"),
    "more pixels than allowed": (with_photo("--max-pixels", "3"), 1, "--max-pixels"),
    "no number of pixels": (with_photo("--max-pixels", "0"), 2, "expected a whole number from 1, got '0'"),
    "quality out of range": (
        with_photo("--quality", "101"),
        2,
        "expected a whole number from 1 to 100, got '101'",
    ),
    "unknown option": (with_photo("--fast"), 2, "unrecognized arguments: --fast; see 'pocketprior"),
    "shortened option": (with_photo("--str", "0.5"), 2, "unrecognized arguments: --str"),
    "unknown command": (bare("restor"), 2, "unknown command 'restor'; choose one of: restore, info, verify"),
    "no command": (bare(), 2, "arguments are required: COMMAND"),
    "missing pack": (with_photo("--pack", "/nowhere/pack"), 1, "expected the folder of a pack"),
    "folder that is no pack": (with_photo("--pack", "{folder}"), 1, "expected the folder of a pack"),
    "manifest not JSON": (not_json, 1, "manifest.json is not valid JSON"),
    "pack of another version": (
        in_manifest(lambda t: t.update(format=2)),
        1,
        "this version of pocketprior reads format 1",
    ),
    "pack with an unknown field": (
        in_manifest(lambda t: t.update(speed="fast")),
        1,
        "unknown field 'speed'; valid fields",
    ),
    "pack without a field": (in_manifest(lambda t: t.pop("levels")), 1, "the field 'levels' is missing"),
    "pack with other noise": (in_manifest(lambda t: t.update(noise="mt")), 1, "noise: given 'mt', expected philox4x32"),
    "pack with a path outside": (
        in_manifest(lambda t: t.update(card=["../../etc/passwd", "0" * 64, 1])),
        1,
        "a path inside the folder of the pack",
    ),
    "graph file missing": (without_graph_file, 1, "has no file 'fused.onnx'"),
    "graph file tampered": (in_graph("fused", flipped, hashed=False), 1, "fused.onnx was changed after packing"),
    "graph file truncated": (in_graph("fused", lambda data: data[:900], hashed=True), 1, "cannot open"),
    "graph file empty": (in_graph("predict", lambda _: b"", hashed=True), 1, "cannot open"),
    "weights NaN": (
        in_graph("fused", lambda _: packs.graph_bytes("fused", nan=True), hashed=True),
        1,
        "graph 'fused', tile at row 0, column 0: its output 'restored' has values that are not finite",
    ),
    "weights NaN in the code": (
        in_graph("encode", lambda _: packs.graph_bytes("encode", nan=True), hashed=True),
        1,
        "graph 'encode': its output 'code' has values that are not finite",
    ),
    "graph of another interface": (
        in_graph("fused", lambda _: packs.graph_bytes("predict"), hashed=True),
        1,
        "fused.onnx, inputs: ",
    ),
    "graph of one size": (
        in_graph("fused", lambda _: packs.graph_bytes("fused", fixed=True), hashed=True),
        1,
        "the manifest says",
    ),
    "info on nothing": (bare("info", "/nowhere"), 1, "expected the folder of a pack"),
    "info without a pack": (bare("info"), 2, "give either the folder of a pack, or --default"),
    "info on two packs": (about_pack("info", None, "--default"), 2, "give either the folder of a pack, or --default"),
    "verify without a pack": (bare("verify"), 2, "give either the folder of a pack, or --default"),
    "verify in an unknown runtime": (about_pack("verify", None, "--runtime", "x"), 2, "unknown runtime 'x'"),
    "verify a pack of another version": (
        about_pack("verify", in_manifest(lambda t: t.update(format="2"))),
        1,
        "this version of pocketprior reads format 1",
    ),
}


@pytest.mark.parametrize(("make", "code", "words"), CASES.values(), ids=CASES)
def test_bad_input(
    make: Make, code: int, words: str, pack: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    arguments = make(folder, pack)
    if arguments[:1] == ["restore"] and "--pack" not in arguments:
        arguments += ["--pack", str(pack)]
    before = content(tmp_path)
    assert main(arguments) == code
    out, err = capfd.readouterr()
    assert words in err
    assert (out, err.count("error: "), err.count("\n")) == ("", 1, 1)
    assert content(tmp_path) == before


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 25
