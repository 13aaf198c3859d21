"""Which photos a call means, and where their results go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pocketprior.core.errors import PhotoReadError, UsageError
from pocketprior.core.restore import batch
from pocketprior.core.restore.batch import compare_path, plan_jobs


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos, as the current folder."""
    files = ["a.jpg", "b.PNG", "notes.txt", ".hidden.jpg", "sub/c.tif", "sub/deep/d.webp", ".git/e.jpg", "[1].jpg"]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(*arguments: str, out: str | None = None) -> dict[str, str]:
    return {job.photo.as_posix(): job.output.as_posix() for job in plan_jobs(arguments, out)[0]}


@pytest.mark.usefixtures("here")
class TestPlan:
    def test_beside_the_photo(self) -> None:
        assert planned("a.jpg", "sub/c.tif") == {"a.jpg": "a.restored.jpg", "sub/c.tif": "sub/c.restored.tif"}

    def test_to_a_file(self) -> None:
        assert planned("a.jpg", out="new.png") == {"a.jpg": "new.png"}

    def test_to_a_folder_that_is_there(self) -> None:
        assert planned("a.jpg", out="sub") == {"a.jpg": "sub/a.jpg"}

    def test_to_a_folder_that_is_not_there_yet(self) -> None:
        assert planned("a.jpg", out="new/") == {"a.jpg": "new/a.jpg"}
        assert planned("a.jpg", "sub/c.tif", out="new") == {"a.jpg": "new/a.jpg", "sub/c.tif": "new/c.tif"}

    def test_a_folder_with_all_that_is_in_it(self) -> None:
        assert planned(".") == {
            "[1].jpg": "[1].restored.jpg",
            "a.jpg": "a.restored.jpg",
            "b.PNG": "b.restored.PNG",
            "sub/c.tif": "sub/c.restored.tif",
            "sub/deep/d.webp": "sub/deep/d.restored.webp",
        }

    def test_a_folder_keeps_its_shape(self) -> None:
        assert planned("sub", out="new") == {"sub/c.tif": "new/c.tif", "sub/deep/d.webp": "new/deep/d.webp"}

    def test_the_folder_of_results_is_not_searched(self) -> None:
        assert planned(".", out="sub").keys() == {"[1].jpg", "a.jpg", "b.PNG"}

    def test_patterns(self) -> None:
        assert planned("*.jpg").keys() == {"a.jpg", "[1].jpg"}
        assert planned("**/*.tif").keys() == {"sub/c.tif"}
        assert planned("s*").keys() == {"sub/c.tif", "sub/deep/d.webp"}

    def test_a_name_that_looks_like_a_pattern(self) -> None:
        assert planned("[1].jpg").keys() == {"[1].jpg"}

    def test_a_photo_named_twice_is_one(self, here: Path) -> None:
        (here / "link.jpg").symlink_to("a.jpg")
        assert len(planned("a.jpg", "./a.jpg", "*a.jpg", "link.jpg")) == 1

    def test_earlier_results_are_left_out(self, here: Path) -> None:
        for name in ("a.restored.jpg", "a.compare.jpg"):
            (here / name).touch()
        planned_jobs, left_out = plan_jobs(["*.jpg"], None)
        assert [job.photo.name for job in planned_jobs] == ["[1].jpg", "a.jpg"]
        assert [path.name for path in left_out] == ["a.compare.jpg", "a.restored.jpg"]

    def test_an_earlier_result_named_alone_is_restored(self, here: Path) -> None:
        (here / "a.restored.jpg").touch()
        assert planned("a.restored.jpg") == {"a.restored.jpg": "a.restored.restored.jpg"}

    def test_a_missing_file_is_a_job_that_will_fail(self) -> None:
        assert planned("none.jpg") == {"none.jpg": "none.restored.jpg"}

    @pytest.mark.parametrize(
        ("arguments", "out", "words"),
        [
            (["*.gif"], None, r"no file fits the pattern '\*.gif'"),
            (["a.jpg"], "a.jpg", "over the photo 'a.jpg'"),
            (["a.jpg"], "./sub/../a.jpg", "over the photo 'a.jpg'"),
            (["a.jpg"], ".", "over the photo 'a.jpg'"),
            (["a.jpg", "b.PNG"], "notes.txt", "is a file, but several photos"),
            (["notes.txt"], None, r"'notes.restored.txt' cannot be written; name a file with -o that has .avif"),
            (["a.jpg"], "new", "'new' cannot be written"),
        ],
    )
    def test_calls_that_cannot_work(self, arguments: list[str], out: str | None, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            plan_jobs(arguments, out)


def test_a_folder_that_cannot_be_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(folder: Path, onerror: Callable[[OSError], None]) -> list[object]:
        onerror(PermissionError(13, "Permission denied", str(folder)))
        return []

    monkeypatch.setattr(batch.os, "walk", walk)
    with pytest.raises(PhotoReadError, match="cannot be searched: Permission denied; make it readable"):
        plan_jobs([str(tmp_path)], None)


@pytest.mark.parametrize(
    ("output", "compare"),
    [("x/a.restored.jpg", "x/a.compare.jpg"), ("new.png", "new.compare.png"), ("a.b.tif", "a.b.compare.tif")],
)
def test_comparisons_go_beside_the_result(output: str, compare: str) -> None:
    assert compare_path(Path(output)) == Path(compare)
