"""What holds for every op: `run_interpreted` in Triton's interpreter, `check_ahead` by compiling ahead of time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from gpu import tables

ROOT = Path(__file__).resolve().parents[2]
# Compiling takes seconds: the narrowest, whose sums stay in registers, and the widest. The page has all sizes.
SIZES = ((32, torch.bfloat16), (128, torch.bfloat16), (128, torch.float32))


def interpreted(script: str, *arguments: str) -> str:
    """What a script of this folder prints in a process in which Triton interprets kernels."""
    command = [sys.executable, Path(__file__).with_name(script), *arguments]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def run_interpreted(op: str) -> None:
    """Output and gradients of every small case, dtype and layout hold, and so does PyTorch's own check of the op."""
    findings = [json.loads(line) for line in interpreted("interpreted.py", op).splitlines()]
    assert {found["what"] for found in findings} > {"output", "gradient 0", "opcheck"}
    wrong = [found for found in findings if not found["holds"]]
    assert not wrong, "\n".join(map(str, wrong))


def check_ahead(op: str, target: str) -> None:
    """Every kernel of the op compiles for `target` in 16 and 32 bit without spilling a register."""
    for width, dtype in SIZES:
        found = tables.started(op, (1, width, 64, 64), dtype)
        assert found
        for launch in found:
            name = f"{launch.kernel.fn.__name__} {launch.constants} {dtype} {target}"
            assert tables.compiled(launch, target).spilled == 0, name
