"""The C++ implementations of the hot loops, where they were built (`runtimes/native`, C ABI in `native.h`).

`library()` finds the shared library next to this file, or wherever an editable install keeps it, and opens it with
ctypes; callers use NumPy where there is none. The NumPy code is the specification, the library returns the same bits.
The calls release the interpreter lock and use as many threads as the process may use cores.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.util import find_spec

import numpy as np

from .errors import PocketPriorError

__all__ = ["ABI_VERSION", "ALL_CORES", "library"]

ABI_VERSION = 1  # PP_ABI_VERSION in native.h
ALL_CORES = 0  # value of the C argument `threads`

_U8, _U16, _U32, _F32 = (
    np.ctypeslib.ndpointer(dtype, flags="C_CONTIGUOUS") for dtype in (np.uint8, np.uint16, np.uint32, np.float32)
)
_SIZE, _WORD, _SEED, _THREADS = ctypes.c_size_t, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint

_ARGUMENTS = {
    "pp_philox4x32": (_U32, _U32, _U32),
    "pp_normal_of_bits": (_U32, _SIZE, _F32),
    "pp_normal": (_SEED, _WORD, _WORD, _WORD, _SIZE, _SIZE, _SIZE, _F32, _THREADS),
    "pp_to_batch_u8": (_U8, _SIZE, _SIZE, _F32, _THREADS),
    "pp_to_batch_u16": (_U16, _SIZE, _SIZE, _F32, _THREADS),
    "pp_to_image_u8": (_F32, _SIZE, _SIZE, _U8, _THREADS),
    "pp_to_image_u16": (_F32, _SIZE, _SIZE, _U16, _THREADS),
    "pp_blend": (_F32, _F32, _F32, ctypes.c_int, _SIZE, _SIZE, _SIZE, _F32),
}


@cache
def library() -> ctypes.CDLL | None:
    """The native library with typed functions, or None where it was not built.

    Raises PocketPriorError for a library that exists but cannot be used: falling back would hide a broken install.
    """
    spec = find_spec(f"{__package__}._native")
    return None if spec is None or spec.origin is None else _open(spec.origin)


def _open(path: str) -> ctypes.CDLL:
    try:
        opened = ctypes.CDLL(path)
        opened.pp_abi_version.restype = _WORD
        version = int(opened.pp_abi_version())
    except (OSError, AttributeError) as error:
        raise PocketPriorError(
            f"the native library {path} cannot be opened ({error}); reinstall pocketprior, "
            "or delete that file to work without it"
        ) from error
    if version != ABI_VERSION:
        raise PocketPriorError(
            f"the native library {path} has ABI version {version}, this package needs {ABI_VERSION}; "
            "reinstall pocketprior so that both come from one source"
        )
    for name, arguments in _ARGUMENTS.items():
        function = getattr(opened, name)
        function.argtypes, function.restype = arguments, None
    return opened
