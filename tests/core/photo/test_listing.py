from __future__ import annotations

import pytest

from pocketprior.core.errors import UsageError
from pocketprior.core.photo.listing import clean_photos, damaged_photos, photos_in, released_photos

HEADER = "file,split,set,role,use,note"
ROWS = [
    "b/2.png,test,B,clean,any,x",
    "a/1.png,test,A,clean,eval-only,",
    "a/3.png,test,A,lq,any,",
    "a/4.png,train,A,clean,any,",
]


@pytest.fixture
def data(tmp_path):
    (tmp_path / "manifest.csv").write_text("\n".join([HEADER, *ROWS]))
    return tmp_path


def names(photos):
    return [photo.path.name for photo in photos]


def test_chooses_by_split_role_folder_and_use(data):
    assert names(clean_photos(data, split="test")) == ["1.png", "2.png"]
    assert names(clean_photos(data, split="test", folder="b")) == ["2.png"]
    assert names(clean_photos(data, split="test", use="any")) == ["2.png"]
    assert names(clean_photos(data, split="train")) == ["4.png"]


def test_a_folder_is_no_prefix_of_a_name(data):
    with pytest.raises(UsageError, match="no clean 'test' photos under 'aa'"):
        clean_photos(data, split="test", folder="aa")


def test_pairs_are_those_whose_partner_is_named(tmp_path):
    rows = [
        "file,split,set,role,use,pair_gt",
        "p/lq/2.png,val,P,lq,any,p/gt/2.png",
        "p/lq/1.png,val,P,lq,any,p/gt/1.png",
    ]
    rows += ["p/lq/3.png,val,P,lq,any,", "p/lq/4.png,train,P,lq,any,p/gt/4.png", "q/lq/5.png,val,Q,lq,any,q/gt/5.png"]
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    found = damaged_photos(tmp_path, split="val", folder="p")
    assert found == [(tmp_path / f"p/lq/{i}.png", tmp_path / f"p/gt/{i}.png") for i in (1, 2)]
    assert damaged_photos(tmp_path, split="test", folder="p") == []


def test_no_list_or_a_column_missing(data):
    with pytest.raises(UsageError, match=r"has no manifest\.csv"):
        clean_photos(data / "a", split="test")
    (data / "manifest.csv").write_text("file,split\nx,test\n")
    with pytest.raises(UsageError, match="lacks the columns role, set, use"):
        clean_photos(data, split="test")


def test_a_folder_without_a_list_gives_all_its_photos(tmp_path):
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(UsageError, match="there are no photos under"):
        released_photos(tmp_path, split="train")
    with pytest.raises(UsageError, match=r"text.txt' is not a folder; give a folder of photos"):
        released_photos(tmp_path / "text.txt", split="train")
    (tmp_path / "a.png").write_bytes(b"")
    assert released_photos(tmp_path, split="train") == [tmp_path / "a.png"]


def test_a_list_above_the_folder_counts(data):
    for name in ("a", "b"):
        (data / name).mkdir()
    for row in ROWS:
        (data / row.split(",")[0]).write_bytes(b"")
    assert released_photos(data / "a", split="train") == [data / "a" / "4.png"]
    with pytest.raises(UsageError, match="no clean 'train' photos under 'b'"):
        released_photos(data / "b", split="train")
    assert photos_in(data / "b") == [data / "b" / "2.png"]
