import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loligo.files import locked, replacing, write_json


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.txt"
    with replacing(target) as path:
        path.write_text("old")
    with pytest.raises(RuntimeError), replacing(target) as path:
        path.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    with replacing(target) as path:
        path.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_what_a_kill_left_goes_when_it_is_old(tmp_path: Path) -> None:
    target, old, new = tmp_path / "a[1].txt", tmp_path / ".a[1].txt.abcd1234", tmp_path / ".a[1].txt.abcd5678"
    other = tmp_path / ".b.txt.abcd1234"
    for left in (old, new, other):
        left.mkdir()
        (left / "half").write_text("half")
    for left in (old, other):
        os.utime(left, (0, 0))
    with replacing(target) as path:
        path.write_text("whole")
    assert target.read_text() == "whole"
    assert not old.exists() and new.exists() and other.exists()  # another process may be at work on the new one


def test_a_folder_is_replaced_too(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with replacing(tmp_path / "folder") as path:
            path.mkdir()
            (path / name).touch()
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_weights_can_be_read_by_others_as_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "w.safetensors") as path:
            save_file({"a": torch.zeros(1)}, path)
    finally:
        os.umask(before)
    assert (tmp_path / "w.safetensors").stat().st_mode & 0o777 == 0o640


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OSError, match=r"cannot write .*file/x\.txt: (Not a directory|File exists)"),
        replacing(tmp_path / "file" / "x.txt"),
    ):
        pass


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_takes_no_folder_away(durable: bool, tmp_path: Path) -> None:
    folder = tmp_path / "data.parquet"
    folder.mkdir()
    (folder / "part-0").write_text("precious")
    with (
        pytest.raises(OSError, match=r"cannot write .*data\.parquet: it is a folder"),
        replacing(folder, durable) as path,
    ):
        path.write_text("a table")
    assert (folder / "part-0").read_text() == "precious"
    assert list(tmp_path.iterdir()) == [folder]


def test_json_replaces_what_stood_there(tmp_path: Path) -> None:
    for values in ({"a": [1, 2.5]}, {"b": "ü"}):
        write_json(values, tmp_path / "new" / "a.json")
        assert json.loads((tmp_path / "new" / "a.json").read_text(encoding="utf-8")) == values
    with pytest.raises(TypeError):
        write_json(object(), tmp_path / "new" / "a.json")
    assert json.loads((tmp_path / "new" / "a.json").read_text(encoding="utf-8")) == {"b": "ü"}


def count_up(folder: Path) -> None:
    for _ in range(50):
        with locked(folder):
            value = int((folder / "count").read_text())
            (folder / "count").write_text(str(value + 1))


def test_whoever_holds_a_folder_holds_others_back(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with locked(folder):
        (folder / "count").write_text("0")
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=count_up, args=(folder,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert (folder / "count").read_text() == "100"


def test_files_and_images_can_be_used_where_unix_modules_are_missing() -> None:
    code = """
import sys
for name in ("fcntl", "resource", "pwd", "grp"):
    sys.modules[name] = None
import loligo.files, loligo.io, loligo.data.cache, loligo.data.arrays
"""
    subprocess.run([sys.executable, "-c", code], check=True)
