import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch

from loligo.data import cache


def noise(seed, height=20, width=30, dtype=np.uint16):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max + 1, (height, width)).astype(dtype)


@pytest.fixture
def rows(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for seed, path in enumerate(paths):
        PIL.Image.fromarray(noise(seed)).save(path)
    return pd.DataFrame({"path": [str(path) for path in paths], "label": range(5), "mask": ""})


def load(rows, tmp_path, size=8, **options):
    return cache.load(rows, size, folder=tmp_path / "cache", progress=False, **options)


def entries(tmp_path):
    return sorted((tmp_path / "cache").iterdir())


def forbid_decoding(monkeypatch):
    def fail(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(cache, "_decode", fail)


def test_pixels_of_the_same_size_are_those_of_the_file_to_16_bit(rows, tmp_path):
    PIL.Image.fromarray(noise(0, 16, 16)).save(rows["path"][0])
    data = load(rows.head(1), tmp_path, size=16)
    assert (data.pixels.shape, data.pixels.dtype) == ((1, 1, 16, 16), np.uint16)
    np.testing.assert_array_equal(data.pixels[0, 0], noise(0, 16, 16))


def test_reduction_by_two_is_the_antialiased_triangle(rows, tmp_path):
    values = noise(0, 16, 16)
    PIL.Image.fromarray(values).save(rows["path"][0])
    data = load(rows.head(1), tmp_path)
    weights = np.array([1, 3, 3, 1]) / 8  # a triangle of half-width 2 at the centres of four pixels
    expected = weights @ values[1:5, 1:5].astype(float) @ weights  # output pixel (1, 1)
    assert abs(float(data.pixels[0, 0, 1, 1]) - expected) <= 1


def test_batch_takes_any_indices(rows, tmp_path):
    data = load(rows, tmp_path)
    batch = data.batch([3, 1])
    assert (batch.dtype, batch.shape) == (torch.float32, (2, 1, 8, 8))
    assert 0 <= batch.min() < batch.max() <= 1
    for indices in (np.array([3, 1]), torch.tensor([3, 1])):
        assert torch.equal(batch, data.batch(indices))
    np.testing.assert_array_equal(np.rint(batch[0].numpy() * 65535), data.pixels[3])
    assert len(data) == 5
    assert data.rejected.empty


def test_second_load_decodes_nothing(rows, tmp_path, monkeypatch):
    first = load(rows, tmp_path)
    forbid_decoding(monkeypatch)
    second = load(rows, tmp_path)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert isinstance(second.pixels, np.memmap)
    assert not second.pixels.flags.writeable
    assert len(entries(tmp_path)) == 1


def test_moved_files_are_found_by_content(rows, tmp_path, monkeypatch):
    load(rows, tmp_path)
    (tmp_path / "moved").mkdir()
    moved = rows.assign(path=[shutil.copy(path, tmp_path / "moved") for path in rows["path"]])
    forbid_decoding(monkeypatch)
    assert list(load(moved, tmp_path).rows["path"]) == list(moved["path"])


def test_changed_content_order_and_size_make_another_entry(rows, tmp_path):
    before = load(rows, tmp_path).pixels[2].copy()
    PIL.Image.fromarray(noise(9)).save(rows["path"][2])
    after = load(rows, tmp_path)
    assert not np.array_equal(before, after.pixels[2])
    turned = load(rows[::-1], tmp_path)
    np.testing.assert_array_equal(turned.pixels, after.pixels[::-1])
    assert load(rows, tmp_path, size=4).pixels.shape == (5, 1, 4, 4)
    assert len(entries(tmp_path)) == 4


@pytest.mark.parametrize("harm", ["cut", "flip", "no index", "bad index", "no pixels"])
def test_harmed_cache_is_rebuilt(rows, tmp_path, harm):
    expected = np.array(load(rows, tmp_path).pixels)
    (entry,) = entries(tmp_path)
    pixels, index = entry / "pixels.u16", entry / "index.json"
    raw = bytearray(pixels.read_bytes())
    if harm == "cut":
        pixels.write_bytes(raw[:-3])
    elif harm == "flip":
        raw[7] ^= 1
        pixels.write_bytes(raw)
    elif harm == "bad index":
        index.write_text('{"count": 5')
    else:
        (index if harm == "no index" else pixels).unlink()
    np.testing.assert_array_equal(load(rows, tmp_path).pixels, expected)
    assert entries(tmp_path) == [entry]


def die_halfway(rows, folder):
    decode = cache._decode

    def decode_or_die(pair, size, cut):
        if pair[0] == rows["path"].iloc[-1]:
            os._exit(9)
        return decode(pair, size, cut)

    cache._decode = decode_or_die
    cache.load(rows, 8, folder=folder, progress=False)


def load_and_send(rows, folder, barrier, queue):
    barrier.wait(timeout=20)
    queue.put(int(cache.load(rows, 8, folder=folder, progress=False).pixels.astype(np.int64).sum()))


def test_a_kill_halfway_leaves_no_half_cache(rows, tmp_path):
    context = multiprocessing.get_context("fork")
    victim = context.Process(target=die_halfway, args=(rows, tmp_path / "cache"))
    victim.start()
    victim.join(30)
    assert victim.exitcode == 9
    assert all(path.name.startswith(".building-") for path in entries(tmp_path))
    (left,) = entries(tmp_path)
    os.utime(left, (0, 0))
    assert len(load(rows, tmp_path)) == 5
    assert not left.exists()


def test_two_processes_share_one_cache(rows, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    pair = [context.Process(target=load_and_send, args=(rows, tmp_path / "cache", barrier, queue)) for _ in range(2)]
    for process in pair:
        process.start()
    sums = {queue.get(timeout=30) for _ in pair}
    for process in pair:
        process.join(10)
    assert sums == {int(load(rows, tmp_path).pixels.astype(np.int64).sum())}
    assert len(entries(tmp_path)) == 1


def test_whoever_comes_second_keeps_what_is_there(rows, tmp_path, monkeypatch):
    data = load(rows, tmp_path)
    (entry,) = entries(tmp_path)
    born = (entry / "index.json").stat().st_ino
    opened, real = [], cache._open

    def absent_at_first(*arguments):
        opened.append(1)
        return None if len(opened) == 1 else real(*arguments)

    monkeypatch.setattr(cache, "_open", absent_at_first)
    np.testing.assert_array_equal(load(rows, tmp_path).pixels, data.pixels)
    assert (entry / "index.json").stat().st_ino == born
    assert entries(tmp_path) == [entry]


def test_bad_files_are_set_apart_with_their_reason(rows, tmp_path):
    (tmp_path / "1.png").write_text("text")
    (tmp_path / "3.png").unlink()
    for _ in range(2):  # decoded, then from the cache
        data = load(rows, tmp_path)
        assert list(data.rows["label"]) == [0, 2, 4]
        assert list(data.rows.index) == [0, 1, 2]
        assert list(data.rejected["path"]) == [str(tmp_path / "1.png"), str(tmp_path / "3.png")]
        assert data.rejected["reason"][0].startswith("its content is not PNG")
        assert "No such file" in data.rejected["reason"][1]
        with pytest.raises(ValueError, match=r"^[^ ]*1\.png: its content is not PNG"):
            load(rows, tmp_path, strict=True)
    PIL.Image.fromarray(noise(3)).save(tmp_path / "3.png")
    assert list(load(rows, tmp_path).rows["label"]) == [0, 2, 3, 4]


def test_nothing_left_fails(rows, tmp_path):
    for path in rows["path"]:
        Path(path).write_bytes(b"")
    with pytest.raises(ValueError, match=r"all 5 images were rejected, the first: .*0\.png: it is empty"):
        load(rows, tmp_path)
    with pytest.raises(ValueError, match="there are no images to load"):
        load(rows.head(0), tmp_path)
    with pytest.raises(ValueError, match="size 0 is not a positive"):
        load(rows, tmp_path, size=0)


def test_masks_must_exist_and_fit(rows, tmp_path):
    rows["mask"] = [str(tmp_path / f"mask{i}.png") for i in range(3)] + ["", str(tmp_path / "mask.jpg")]
    PIL.Image.fromarray(noise(0) > 9).save(rows["mask"][0])
    PIL.Image.fromarray(noise(0, 20, 31) > 9).save(rows["mask"][1])
    data = load(rows, tmp_path)
    assert list(data.rows["label"]) == [0, 3]
    wrong, absent, lossy = data.rejected["reason"]
    assert wrong.endswith("has (height, width) (20, 31), the image (20, 30)")
    assert "mask2.png" in absent
    assert "a mask cannot be JPEG" in lossy
    assert not any(str(tmp_path) in reason for reason in (wrong, absent, lossy))  # a folder may tell of a patient
    PIL.Image.fromarray(noise(0) > 9).save(rows["mask"][1])
    assert list(load(rows, tmp_path).rows["label"]) == [0, 1, 3]


def test_read_mask_is_true_where_not_zero(tmp_path):
    PIL.Image.fromarray(np.array([[0, 1, 255]], np.uint8)).save(tmp_path / "m.png")
    mask = cache.read_mask(tmp_path / "m.png")
    assert mask.dtype == bool
    assert mask.tolist() == [[False, True, True]]


def test_cache_folder_comes_from_the_environment(rows, tmp_path, monkeypatch):
    monkeypatch.setenv("LOLIGO_CACHE", str(tmp_path / "elsewhere"))
    cache.load(rows, 8, progress=False)
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


def test_unwritable_or_full_folder_says_what_to_do(rows, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"cannot write the image cache in .*cache: .*set LOLIGO_CACHE"):
        load(rows, tmp_path)
    (tmp_path / "cache").unlink()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_write", full)
    with pytest.raises(OSError, match=r"No space left on device; free space there, or set LOLIGO_CACHE"):
        load(rows, tmp_path)
    assert entries(tmp_path) == []


def test_reading_a_large_entry_takes_no_memory_for_what_was_read(tmp_path: Path) -> None:
    (tmp_path / "pixels").write_bytes(bytes(64 << 20))
    pixels = np.memmap(tmp_path / "pixels", "<u2", "r", shape=(512, 1, 256, 256))
    rows = pd.DataFrame({"path": [f"{i}.png" for i in range(512)]})
    data = cache.Dataset(rows, pixels, pd.DataFrame(columns=["path", "reason"]))

    def mapped() -> int:
        lines = Path("/proc/self/smaps").read_text().split(str(tmp_path / "pixels"))[1].splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))

    for start in range(0, 512, 16):
        assert data.batch(range(start, start + 16)).shape == (16, 1, 256, 256)
        assert mapped() < 1024


def test_a_mask_keeps_its_shape_and_never_vanishes():
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:45] = True
    np.testing.assert_array_equal(cache.resized_mask(mask, (60, 40)), mask)
    small = cache.resized_mask(mask, (12, 8))
    np.testing.assert_array_equal(np.argwhere(small), [(r, c) for r in (2, 3) for c in (6, 7, 8)])
    mask[:] = False
    assert not cache.resized_mask(mask, (12, 8)).any()
    mask[33, 7] = True
    assert np.argwhere(cache.resized_mask(mask, (12, 8))).tolist() == [[6, 1]]
