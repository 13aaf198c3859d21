"""The table of commands: each is there, imported when asked for, and answers with an exit code."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from pocketprior.core import cli
from pocketprior.core.cli import COMMANDS, main
from pocketprior.core.errors import GraphError, UsageError

HEAVY = "torch,onnxruntime,PIL.ImageCms,tqdm,safetensors,onnx"


def loaded_by(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in its own process; stdout says which heavy modules were loaded."""
    program = (
        "import sys, io, contextlib\n"
        "from pocketprior.core.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    code = main(sys.argv[2:])\n"
        "print(code, *[name for name in sys.argv[1].split(',') if name in sys.modules])\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program, HEAVY, *arguments], capture_output=True, text=True, timeout=60, check=True
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["restore", "--help"],
        ["info", "--help"],
        ["bench", "quality", "--help"],
        ["parity", "-h"],
    ],
)
def test_help_is_quick(arguments: list[str]) -> None:
    loaded = set(loaded_by(*arguments).stdout.split()) - {"PIL.ImageCms"}
    assert loaded == {"0"}


def test_restoring_never_loads_torch(built_pack: object, tmp_path: object) -> None:
    from PIL import Image

    Image.new("RGB", (9, 9)).save(f"{tmp_path}/a.png")
    loaded = loaded_by("restore", f"{tmp_path}/a.png", "--pack", str(built_pack)).stdout.split()
    assert loaded[0] == "0"
    assert "onnxruntime" in loaded
    assert not {"torch", "onnx", "safetensors", "tqdm"} & set(loaded)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_module_of_every_command_is_there(name: str) -> None:
    if find_spec(f"pocketprior.{COMMANDS[name][0].rpartition('.')[0]}") is None:
        pytest.fail(f"the package of '{name}' is missing")
    assert find_spec(f"pocketprior.{COMMANDS[name][0]}") is not None


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n    {name}" in out for name in COMMANDS if " " not in name)


@pytest.mark.parametrize("name", [name for name in COMMANDS if " " in name])
def test_a_command_of_two_words_is_listed_by_its_first(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = name.split()
    assert main([first, "--help"]) == 0
    assert f"\n    {second} " in capsys.readouterr().out
    assert main([first, "nothing"]) == 2
    assert second in capsys.readouterr().err


HELP_WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    def find_spec(self, name, *_):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

blocked = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Blocked())
from pocketprior.core.cli import COMMANDS, main
for name in COMMANDS:
    print(f"<<{name}>>")
    print(f"code {main([*name.split(), '--help'])}")
"""
OPTIONAL = (
    "torch,torchvision,triton,timm,onnx,onnxscript,openvino,nncf,coremltools,cv2,bm3d,accelerate,safetensors,webdataset"
)


def test_every_help_works_without_the_extras() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP_WITHOUT, OPTIONAL], capture_output=True, text=True, timeout=120, check=True
    )
    parts = done.stdout.split("<<")[1:]
    assert [part.partition(">>")[0] for part in parts] == list(COMMANDS)
    for part in parts:
        assert "code 0" in part, part
        assert "usage: pocketprior" in part
    full = {part.partition(">>")[0]: part for part in parts}
    assert {"quality", "speed", "graphs", "students"} <= set(full["bench"].split())
    assert "--teacher-steps" in full["parity record"], "its options need no extra"


def test_help_without_an_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object) -> object:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(cli, "import_module", missing)
    assert main(["bench", "students", "--help"]) == 0
    out = capsys.readouterr().out
    assert "usage: pocketprior bench students" in out
    assert "pip install 'pocketprior[train]'" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pocketprior {version('pocketprior')}\n"


def test_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pocketprior", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == f"pocketprior {version('pocketprior')}\n"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The command `train`, replaced by a module whose `run` a test sets."""
    module = SimpleNamespace(add_arguments=lambda parser: parser.add_argument("--steps", type=int), run=lambda _: 0)
    monkeypatch.setattr(cli, "import_module", lambda *_: module)
    return module


@pytest.mark.parametrize("code", [0, 1, 2, 7])
def test_the_exit_code_is_the_commands(command: SimpleNamespace, code: int) -> None:
    command.run = lambda args: code if args.steps == 3 else -1
    assert main(["train", "--steps", "3"]) == code


@pytest.mark.parametrize(("kind", "code"), [(GraphError, 1), (UsageError, 2)])
def test_our_errors_are_sentences(
    command: SimpleNamespace, kind: type[Exception], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: object) -> int:
        raise kind("something is wrong; mend it")

    command.run = run
    assert main(["train"]) == code
    assert capsys.readouterr() == ("", "pocketprior: error: something is wrong; mend it\n")


def test_ctrl_c(command: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: object) -> int:
        raise KeyboardInterrupt

    command.run = run
    assert main(["train"]) == 130
    assert capsys.readouterr() == ("", "pocketprior: interrupted\n")


@pytest.mark.parametrize("name", ["torch", "torch.nn"])
@pytest.mark.parametrize("command_name", [name for name, (_, _, extra) in COMMANDS.items() if extra])
def test_a_missing_extra_is_a_sentence(
    command_name: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object) -> object:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(cli, "import_module", missing)
    assert main(command_name.split()) == 2
    err = capsys.readouterr().err
    assert f"'pocketprior {command_name}' needs the package 'torch', which is not installed" in err
    assert f"pip install 'pocketprior[{COMMANDS[command_name][2]}]'" in err


@pytest.mark.parametrize(("command_name", "name"), [("train", "pocketprior.core.lost"), ("restore", "numpy")])
def test_a_missing_module_of_ours_is_a_bug(command_name: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> object:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(cli, "import_module", missing)
    with pytest.raises(ModuleNotFoundError):
        main([command_name])
