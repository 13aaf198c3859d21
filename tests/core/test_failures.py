"""What goes wrong while photos are restored: the rest goes on, what is finished stays, nothing is half written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pocketprior.core.cli import main
from pocketprior.core.pack.manifest import Manifest
from pocketprior.core.photo.io import read
from support import packs
from support.photo_files import content, save


def test_a_tampered_pack_is_reported_file_by_file(pack: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (pack / "fused.onnx").write_bytes((pack / "fused.onnx").read_bytes() + b" ")
    assert main(["verify", str(pack)]) == 1
    out, err = capfd.readouterr()
    assert "FAIL  " in out
    assert "fused.onnx was changed after packing" in out
    assert "no golden restoration was compared" in out
    assert err == ""


def test_one_bad_photo_does_not_stop_the_others(
    built_pack: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "c.png", "sub/d.png"):
        save(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"damaged")
    assert main(["restore", str(tmp_path), "--pack", str(built_pack), "--json"]) == 1
    out, err = capfd.readouterr()
    assert err.count("error: ") == 1
    assert [photo["state"] for photo in json.loads(out)["photos"]] == ["restored", "failed", "restored", "restored"]
    assert sorted(path.name for path in tmp_path.rglob("*.restored.png")) == [
        "a.restored.png",
        "c.restored.png",
        "d.restored.png",
    ]


def test_the_disk_is_full(
    built_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save(tmp_path / "a.png")
    before = content(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    assert main(["restore", str(tmp_path / "a.png"), "--pack", str(built_pack)]) == 1
    assert "the disk is full; free some space" in capfd.readouterr().err
    assert content(tmp_path) == before


def test_no_memory(
    built_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def none(*_: object, **__: object) -> np.ndarray:
        raise MemoryError

    save(tmp_path / "a.png")
    before = content(tmp_path)
    monkeypatch.setattr("pocketprior.core.restore.pipeline.to_batch", none)
    assert main(["restore", str(tmp_path / "a.png"), "--pack", str(built_pack)]) == 1
    assert "does not fit into the memory of this machine" in capfd.readouterr().err
    assert content(tmp_path) == before


def run_command(*arguments: str, limit_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
    """The command in its own process, with a largest file size if one is given."""
    program = "import resource, sys; from pocketprior.core.cli import main; "
    if limit_bytes is not None:
        program += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes})); "
    program += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_the_file_may_not_grow(built_pack: Path, tmp_path: Path) -> None:
    save(tmp_path / "a.png", 200, 200)
    save(tmp_path / "b.png", 4, 4)
    before = content(tmp_path)
    done = run_command("restore", str(tmp_path), "--pack", str(built_pack), limit_bytes=4096)
    assert done.returncode == 1
    assert "a.restored.png: it cannot be written: the file would be larger than the system allows" in done.stderr
    assert "Traceback" not in done.stderr
    assert set(content(tmp_path)) - set(before) == {"b.restored.png"}


# A process started in the background would ignore Ctrl-C.
LISTENING = """
import signal, sys
from pocketprior.core.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def interrupted(built_pack: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """A real Ctrl-C while a folder of photos is restored, after the first of them is done."""
    for number in range(40):
        save(tmp_path / f"{number:02}.png", 160, 160)
    command = [sys.executable, "-c", LISTENING, "restore", str(tmp_path), "--pack", str(built_pack)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "00.restored.png").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def test_ctrl_c_in_the_middle_of_a_folder(
    interrupted: subprocess.CompletedProcess[str], built_pack: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert interrupted.returncode == 130, interrupted.stderr
    assert "of 40 photos are done; --resume continues with the others" in interrupted.stderr
    assert "Traceback" not in interrupted.stderr
    finished = sorted(tmp_path.glob("*.restored.png"))
    assert 1 <= len(finished) < 40
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    first = {path: read(path).pixels.tobytes() for path in finished}

    assert main(["restore", str(tmp_path), "--pack", str(built_pack), "--resume"]) == 0
    assert capfd.readouterr().err.count("is kept") == len(finished)
    assert len(list(tmp_path.glob("*.restored.png"))) == 40
    assert {path: read(path).pixels.tobytes() for path in finished} == first


def test_a_photo_newer_than_its_result_stops_only_itself(built_pack: Path, tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    assert main(["restore", str(tmp_path), "--pack", str(built_pack)]) == 0
    os.utime(tmp_path / "a.restored.png", (1, 1))
    (tmp_path / "b.restored.png").unlink()
    assert main(["restore", str(tmp_path), "--pack", str(built_pack), "--resume"]) == 1
    assert (tmp_path / "b.restored.png").exists()


def test_a_damaged_golden_photo_is_a_failure(pack: Path, manifest: Manifest, capfd: pytest.CaptureFixture[str]) -> None:
    golden = replace(manifest.golden["noisy"], tolerance=0, reason="exact")
    replace(manifest, golden={"noisy": golden}).save(pack)
    (pack / "fused.onnx").write_bytes(packs.graph_bytes("fused", weights="other"))
    packs.rewrite(pack, Manifest.load(pack))
    assert main(["verify", str(pack)]) == 1
    assert "FAIL  golden 'noisy', fused, in onnxruntime: " in capfd.readouterr().out
