from pocketprior.core.markdown import table


def test_columns_are_aligned_left_then_right() -> None:
    assert table([["name", "n"], ["a", "10"], ["long one", "5"]], left=1).splitlines() == [
        "| name     |  n |",
        "| -------- | -: |",
        "| a        | 10 |",
        "| long one |  5 |",
    ]
