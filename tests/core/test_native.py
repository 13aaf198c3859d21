import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pocketprior.core import native
from pocketprior.core.errors import PocketPriorError


def test_library_is_built_here() -> None:
    assert native.library() is not None, "the native library is not built: run pip install . with a C++ compiler"


def test_library_is_opened_once() -> None:
    assert native.library() is native.library()


def test_abi_version_is_that_of_the_header() -> None:
    header = Path(__file__).parents[2] / "runtimes/native/include/pocketprior/native.h"
    assert f"#define PP_ABI_VERSION {native.ABI_VERSION}\n" in header.read_text()


def test_every_function_of_the_header_is_declared() -> None:
    header = Path(__file__).parents[2] / "runtimes/native/include/pocketprior/native.h"
    names = {word.split("(")[0] for word in header.read_text().split() if word.startswith("pp_") and "(" in word}
    assert names == {"pp_abi_version", *native._ARGUMENTS}


def test_missing_library_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "find_spec", lambda _: None)
    assert native.library.__wrapped__() is None


def test_library_of_another_version_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = native.find_spec("pocketprior.core._native")
    assert spec is not None
    assert spec.origin is not None
    monkeypatch.setattr(native, "ABI_VERSION", native.ABI_VERSION + 1)
    with pytest.raises(PocketPriorError, match=f"this package needs {native.ABI_VERSION}; reinstall pocketprior"):
        native._open(spec.origin)


def test_damaged_library_is_an_error(tmp_path: Path) -> None:
    damaged = tmp_path / "_native.so"
    damaged.write_bytes(b"not a library")
    with pytest.raises(PocketPriorError, match="cannot be opened"):
        native._open(str(damaged))


def test_wrong_array_never_reaches_the_library() -> None:
    lib = native.library()
    assert lib is not None
    with pytest.raises(Exception, match="argument 1"):
        lib.pp_normal_of_bits(np.zeros(4, np.float64), 4, np.zeros(4, np.float32))


def test_native_needs_no_torch() -> None:
    code = (
        "import sys; from pocketprior.core.native import library; assert library(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
