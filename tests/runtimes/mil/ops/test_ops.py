"""Every op that the interpreter knows is compared with its definition, by the tests beside this one."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from pocketprior.runtimes.mil.ops import MIL_OPS
from pocketprior.runtimes.mil.ops.elementwise import ELEMENTWISE
from pocketprior.runtimes.mil.ops.quantization import CONSTEXPR, QUANTIZATION
from pocketprior.runtimes.mil.ops.reduction import REDUCTIONS
from pocketprior.runtimes.mil.ops.shaping import SHAPING

HERE = Path(__file__).parent


def cases(folder: Path) -> set[str]:
    """The ops that CASES in the tests of a folder are about."""
    found: set[str] = set()
    for path in sorted(folder.glob("test_*.py")):
        if "\nCASES" in path.read_text(encoding="utf-8"):
            spec = spec_from_file_location(f"cases_of_{path.stem}", path)
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
            found |= {case.partition(":")[0] for case in module.CASES}
    return found


def test_every_op_has_a_case() -> None:
    assert sorted(set(MIL_OPS) ^ cases(HERE)) == []


def test_every_constant_op_has_a_case() -> None:
    assert sorted(set(CONSTEXPR) ^ cases(HERE.parent)) == []


def test_no_op_is_in_two_tables() -> None:
    tables = [ELEMENTWISE, QUANTIZATION, REDUCTIONS, SHAPING]
    assert sum(map(len, tables)) == len(MIL_OPS)
