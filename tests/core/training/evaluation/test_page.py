from __future__ import annotations

from pocketprior.core.training.evaluation.score import MethodFigures, ResultTable, page


def test_page_shows_every_table_with_its_verdicts() -> None:
    values = {"PSNR": 20.0, "NIQE": 3.5, "album distance": 0.25}
    tables = [
        ResultTable("One", [MethodFigures("input", values)], ["It works."]),
        ResultTable("Two", [MethodFigures("input", values)], []),
    ]
    text = page("pocketprior evaluate", "4 photos", tables)
    assert "| input  | 20.00 | 3.50 |          0.250 |" in text
    assert text.index("## One") < text.index("- It works.") < text.index("## Two")
    assert "`pocketprior evaluate`" in text
    assert "4 photos" in text
    assert text == page("pocketprior evaluate", "4 photos", tables)
