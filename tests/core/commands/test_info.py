"""`info --model`; what it says of packs is tested in test_commands.py."""

from __future__ import annotations

import json
import sys

import pytest

from pocketprior.core.cli import main
from pocketprior.core.models.counts import count

Captured = pytest.CaptureFixture[str]


def test_json_holds_one_number_per_part(capsys: Captured) -> None:
    assert main(["info", "--model", "dtpm:mobile", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    parameters, macs = count("dtpm:mobile")
    assert tree == {"model": "dtpm:mobile", "parameters": parameters, "macs_256": macs}
    assert set(parameters) == {"denoiser", "adapters", "predictor"}


def test_table_for_people(capsys: Captured) -> None:
    assert main(["info", "--model", "dtpm:mobile"]) == 0
    title, *rows = capsys.readouterr().out.splitlines()
    assert title.split()[:3] == ["dtpm:mobile", "parameters", "MAC"]
    assert [row.split()[0] for row in rows] == list(count("dtpm:mobile").parameters)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "dtpm:huge"], "choose one of: dtpm:tiny, dtpm:mobile, dtpm:large, dtpm:base, dtpm:paper"),
        (["--model", "dalle:small"], "unknown system 'dalle'"),
        (["--model", "dtpm:mobile", "--default"], "both a model and a pack"),
        (["some/pack", "--model", "dtpm:mobile"], "both a model and a pack"),
    ],
)
def test_wrong_question_is_a_usage_error(options: list[str], message: str, capsys: Captured) -> None:
    assert main(["info", *options]) == 2
    assert message in capsys.readouterr().err


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "pocketprior.core.models.counts")
    assert main(["info", "--model", "dtpm:mobile"]) == 2
    assert "pip install 'pocketprior[train]'" in capsys.readouterr().err
