"""Run in a process of its own with TRITON_INTERPRET=1: every small case of one op through Triton's interpreter.

    python interpreted.py OP

Each case meets each dtype and each layout, and each dtype each layout; a GPU takes all three together. Prints one JSON
object per comparison, and what `torch.library.opcheck` finds.
"""

from __future__ import annotations

import json
import sys

import torch
from gpu.verify import LAYOUTS, arguments, label, module_of, verify

from pocketprior.kernels.select import DTYPES


def main(op: str) -> None:
    cases = module_of(op).CASES
    for i, case in enumerate(cases):
        for j, dtype in enumerate(DTYPES):
            layout = LAYOUTS[(i + j) % len(LAYOUTS)]
            for found in verify(op, case, dtype, layout, "cpu"):
                print(json.dumps({"case": f"{label(case)} {dtype} {layout}", **found._asdict(), "holds": found.holds}))
    checks = torch.library.opcheck(module_of(op).fused, arguments(op, cases[1], torch.float32, "contiguous", "cpu"))
    print(
        json.dumps({"case": label(cases[1]), "what": "opcheck", "holds": set(checks.values()) == {"SUCCESS"}, **checks})
    )


main(sys.argv[1])
