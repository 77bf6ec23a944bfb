import multiprocessing
import os
import pickle
import shutil
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch

from loligo import cli
from loligo.data import cache, entries, masks
from loligo.data.decode import Decoded, _Memory
from loligo.data.preprocessing import Preprocessing
from loligo.types import Geometry, VolumeHeader


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
    return cache.load(rows, Preprocessing(size), folder=tmp_path / "cache", progress=False, **options)


def stored(tmp_path):
    return sorted((tmp_path / "cache" / "images").iterdir())


def forbid_decoding(monkeypatch):
    def fail(*_):
        raise AssertionError("decoded again")

    for module in (cache, entries):
        monkeypatch.setattr(module, "decode", fail)


def test_pixels_of_the_same_size_are_those_of_the_file_to_16_bit(rows, tmp_path):
    PIL.Image.fromarray(noise(0, 16, 16)).save(rows["path"][0])
    data = load(rows.head(1), tmp_path, size=16)
    found = data.pixels[:]
    assert (found.shape, found.dtype) == ((1, 1, 16, 16), np.uint16)
    np.testing.assert_array_equal(found[0, 0], noise(0, 16, 16))


def test_reduction_by_two_is_the_antialiased_triangle(rows, tmp_path):
    values = noise(0, 16, 16)
    PIL.Image.fromarray(values).save(rows["path"][0])
    data = load(rows.head(1), tmp_path)
    weights = np.array([1, 3, 3, 1]) / 8  # a triangle of half-width 2 at the centres of four pixels
    expected = weights @ values[1:5, 1:5].astype(float) @ weights  # output pixel (1, 1)
    assert abs(float(data.pixels[0][0, 1, 1]) - expected) <= 1


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
    whole = data.pixels[:]
    for indices in (slice(1, 4), np.array([True, False, True, False, True]), [-1, 0, 0], [], 2, np.int64(-2)):
        np.testing.assert_array_equal(data.pixels[indices], whole[indices])
    with pytest.raises(IndexError):
        data.pixels[5]


def test_geometry_goes_with_the_rows(rows, tmp_path):
    for _ in range(2):  # decoded, then from the cache
        data = load(rows, tmp_path)
        assert list(data.geometries) == [Geometry((20, 30), source=Path(path)) for path in rows["path"]]
        assert data.preprocessing == Preprocessing(8) and data.counts is None


def test_geometry_of_a_volume_is_kept_to_the_bit(tmp_path):
    import nibabel as nib

    from loligo.io import nifti

    affine = np.array([[0, -1.1, 0, 3], [1.3, 0, 0, -7.7], [0, 0, 2.7, 1 / 3], [0, 0, 0, 1]])
    for kind, name in ((nib.Nifti1Image, "a.nii"), (nib.Nifti2Image, "b.nii.gz")):
        nib.save(kind(np.random.default_rng(0).random((5, 6, 7, 1)).astype(np.float32), affine), tmp_path / name)
        rows, unit = pd.DataFrame({"path": [str(tmp_path / name)]}), Preprocessing(4, window="unit")
        expected = nifti.read_header(tmp_path / name)
        for _ in range(2):
            data = cache.load(rows, unit, folder=tmp_path / "cache", progress=False)
            (found,) = data.geometries
            assert type(found) is VolumeHeader and data.counts == (7,)
            assert replace(found, affine=0, file_place=0) == replace(expected, affine=0, file_place=0)
            np.testing.assert_array_equal(found.affine, expected.affine)
            assert found.file_place.keys() == expected.file_place.keys()
            for key, value in expected.file_place.items():
                assert found.file_place[key].dtype == value.dtype
                np.testing.assert_array_equal(found.file_place[key], value)


def test_second_load_decodes_nothing(rows, tmp_path, monkeypatch):
    first = load(rows, tmp_path)
    forbid_decoding(monkeypatch)
    second = load(rows, tmp_path)
    np.testing.assert_array_equal(first.pixels[:], second.pixels[:])
    np.testing.assert_array_equal(first.batch(range(5)), second.batch(range(5)))
    assert len(stored(tmp_path)) == 5


def test_a_longer_list_decodes_only_what_is_new(rows, tmp_path, monkeypatch):
    load(rows.head(3), tmp_path)
    decode, decoded = cache.decode, []
    monkeypatch.setattr(cache, "decode", lambda path, *rest: (decoded.append(path.name), decode(path, *rest))[1])
    assert len(load(rows, tmp_path)) == 5
    assert sorted(decoded) == ["3.png", "4.png"]


def test_entries_can_be_read_by_their_owner_alone(rows, tmp_path):
    load(rows, tmp_path)
    assert (tmp_path / "cache" / "images").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in stored(tmp_path)} == {0o600}


def test_moved_files_are_found_by_content(rows, tmp_path, monkeypatch):
    load(rows, tmp_path)
    (tmp_path / "moved").mkdir()
    moved = rows.assign(path=[shutil.copy(path, tmp_path / "moved") for path in rows["path"]])
    forbid_decoding(monkeypatch)
    assert list(load(moved, tmp_path).rows["path"]) == list(moved["path"])


def test_changed_content_size_and_preprocessing_make_another_entry(rows, tmp_path):
    before = load(rows, tmp_path).pixels[2]
    PIL.Image.fromarray(noise(9)).save(rows["path"][2])
    after = load(rows, tmp_path)
    assert not np.array_equal(before, after.pixels[2])
    turned = load(rows[::-1], tmp_path)
    np.testing.assert_array_equal(turned.pixels[:], after.pixels[::-1])
    assert len(stored(tmp_path)) == 6
    assert load(rows, tmp_path, size=4).pixels[:].shape == (5, 1, 4, 4)
    padded = cache.load(rows, Preprocessing(8, "pad"), folder=tmp_path / "cache", progress=False)
    assert not np.array_equal(padded.pixels[:], after.pixels[:])
    assert len(stored(tmp_path)) == 16


def test_any_flipped_bit_and_any_cut_is_noticed(rows, tmp_path):
    expected = load(rows.head(1), tmp_path, size=2).pixels[:]
    (entry,) = stored(tmp_path)
    raw = entry.read_bytes()
    file = entries.wanted(rows["path"][0], Preprocessing(2), entry.parent)
    assert file.path == entry and entries.look(file, Preprocessing(2)) is not None
    for i in range(len(raw)):
        entry.write_bytes(raw[:i] + bytes([raw[i] ^ 1 << i % 8]) + raw[i + 1 :])
        assert entries.look(file, Preprocessing(2)) is None
        entry.write_bytes(raw[:i])
        assert entries.look(file, Preprocessing(2)) is None
    entry.write_bytes(raw + b"\0")
    assert entries.look(file, Preprocessing(2)) is None
    np.testing.assert_array_equal(load(rows.head(1), tmp_path, size=2).pixels[:], expected)
    assert entry.read_bytes() == raw


def test_what_vanishes_while_it_is_used_is_decoded_anew(rows, tmp_path, caplog):
    data = load(rows, tmp_path)
    expected = data.pixels[:]
    assert cache.clear(tmp_path / "cache") > 5 * 128
    assert stored(tmp_path) == []
    for _ in range(2):
        np.testing.assert_array_equal(data.pixels[:], expected)
    (said,) = caplog.messages
    assert "0.png is not in the image cache and is decoded at each use" in said
    PIL.Image.fromarray(noise(9)).save(rows["path"][2])
    with pytest.raises(OSError, match=r"2\.png: cannot be used any more \(its content changed\); run again"):
        data.batch([2])
    Path(rows["path"][2]).unlink()
    with pytest.raises(OSError, match=r"2\.png: cannot be used any more \(cannot be read \(No such file"):
        data.batch([2])
    np.testing.assert_array_equal(data.batch([0]), load(rows, tmp_path).batch([0]))


def test_the_least_recently_used_go_first_and_none_of_the_list(rows, tmp_path, monkeypatch, caplog):
    load(rows.head(1), tmp_path)
    (first,) = stored(tmp_path)
    one = first.stat().st_size
    load(rows[1:4], tmp_path)
    old = {path: 100 + i for i, path in enumerate(stored(tmp_path))}
    for path, used in old.items():
        os.utime(path, (used, used))
    load(rows.head(1), tmp_path)  # which uses the first
    monkeypatch.setenv("LOLIGO_CACHE_SIZE", str(4 * one))
    load(rows[4:], tmp_path)
    gone = min((path for path in old if path != first), key=old.get)
    assert set(old) - set(stored(tmp_path)) == {gone} and len(stored(tmp_path)) == 4
    assert not caplog.records
    monkeypatch.setenv("LOLIGO_CACHE_SIZE", str(3 * one))
    data = load(rows, tmp_path)
    assert len(stored(tmp_path)) <= 4  # those of the list stay, others are not written
    assert "the images take more than the" in caplog.text and "LOLIGO_CACHE_SIZE" in caplog.text
    cache.clear(tmp_path / "cache")
    monkeypatch.delenv("LOLIGO_CACHE_SIZE")
    np.testing.assert_array_equal(data.pixels[:], load(rows, tmp_path).pixels[:])
    cache.clear(tmp_path / "cache")
    monkeypatch.setenv("LOLIGO_CACHE_SIZE", str(3 * one))
    load(rows, tmp_path)
    assert len(stored(tmp_path)) == 3
    monkeypatch.setenv("LOLIGO_CACHE_SIZE", "much")
    with pytest.raises(ValueError, match="LOLIGO_CACHE_SIZE: 'much' is no size in bytes"):
        load(rows, tmp_path)


def old_entries(folder):
    """Leave what earlier versions left, and what is none of ours."""
    for name in ("0123456789abcdef" * 2, ".building-abcd1234"):
        (folder / name).mkdir(parents=True)
        (folder / name / "index.json").write_text("{}")
    (folder / ".building-abcd5678" / "name").mkdir(parents=True)
    (folder / ".building-abcd5678" / "name" / "pixels.u16").write_bytes(bytes(100))
    (folder / "fedcba9876543210fedcba9876543210").mkdir()
    (folder / "fedcba9876543210fedcba9876543210" / "thesis.pdf").write_bytes(bytes(9))
    (folder / "mine").mkdir()


def test_clearing_removes_entries_of_all_formats_and_nothing_else(rows, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "cache"
    old_entries(folder)
    load(rows, tmp_path)
    (folder / "images" / "mine.txt").touch()
    entry = stored(tmp_path)[0].stat().st_size
    assert cache.size(folder) == (5 + 3, 5 * entry + 104)
    monkeypatch.setenv("LOLIGO_CACHE", str(folder))
    cli.main(["cache"])
    cli.main(["cache", "clear"])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == said[1] == f"{folder}: 8 entries, {5 * entry + 104:,} bytes of decoded images"
    assert said[2] == f"removed {5 * entry + 104:,} bytes"
    kept = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    assert kept == ["fedcba9876543210fedcba9876543210/thesis.pdf", "images/mine.txt"]
    assert (folder / "mine").is_dir() and cache.size() == (0, 0) and cache.clear() == 0
    assert cache.clear(tmp_path / "nowhere") == 0


def test_entries_of_older_formats_go_first_to_make_room(rows, tmp_path, monkeypatch):
    old_entries(tmp_path / "cache")
    load(rows.head(2), tmp_path)
    used = sum(path.stat().st_size for path in stored(tmp_path))
    monkeypatch.setenv("LOLIGO_CACHE_SIZE", str(2 * used + 102))  # beside what may be at work
    load(rows.head(4), tmp_path)
    assert len(stored(tmp_path)) == 4
    assert not list((tmp_path / "cache").glob("0123*")) and (tmp_path / "cache" / "mine").is_dir()


def die_halfway(rows, folder):
    written = []

    def write_or_die(*given):
        if len(written) == 3:
            (given[0].path.parent / ".building-abcdefgh").write_bytes(b"half")
            os._exit(9)
        written.append(1)
        return write(*given)

    write, cache.write = cache.write, write_or_die
    cache.load(rows, Preprocessing(8), folder=folder, progress=False)


def load_and_send(rows, folder, barrier, queue):
    barrier.wait(timeout=20)
    data = cache.load(rows, Preprocessing(8), folder=folder, progress=False)
    queue.put(int(data.pixels[:].astype(np.int64).sum()))


def read_and_send(data, queue):
    queue.put(int(data.pixels[:].astype(np.int64).sum()))


def test_a_kill_halfway_leaves_no_half_cache(rows, tmp_path):
    context = multiprocessing.get_context("fork")
    victim = context.Process(target=die_halfway, args=(rows, tmp_path / "cache"))
    victim.start()
    victim.join(30)
    assert victim.exitcode == 9
    left = [path for path in stored(tmp_path) if path.name.startswith(".building-")]  # other threads' among them
    for path in left:
        os.utime(path, (0, 0))
    data = load(rows, tmp_path)
    assert left and not any(path.exists() for path in left) and len(stored(tmp_path)) == 5
    shutil.rmtree(tmp_path / "cache")
    np.testing.assert_array_equal(data.pixels[:], load(rows, tmp_path).pixels[:])


def test_two_processes_share_one_cache(rows, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    pair = [context.Process(target=load_and_send, args=(rows, tmp_path / "cache", barrier, queue)) for _ in range(2)]
    for process in pair:
        process.start()
    sums = {queue.get(timeout=30) for _ in pair}
    for process in pair:
        process.join(10)
    assert sums == {int(load(rows, tmp_path).pixels[:].astype(np.int64).sum())}
    assert len(stored(tmp_path)) == 5


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_other_processes_can_read_a_data_set(rows, tmp_path, start):
    data = load(rows, tmp_path)
    context = multiprocessing.get_context(start)
    queue = context.Queue()
    process = context.Process(target=read_and_send, args=(data, queue))
    process.start()
    assert queue.get(timeout=60) == int(data.pixels[:].astype(np.int64).sum())
    process.join(10)
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again.batch([1, 3]), data.batch([1, 3]))


def test_bad_files_are_set_apart_with_their_reason(rows, tmp_path):
    (tmp_path / "1.png").write_text("text")
    (tmp_path / "3.png").unlink()
    for _ in range(2):  # decoded, then from the cache
        data = load(rows, tmp_path)
        assert list(data.rows["label"]) == [0, 2, 4]
        assert list(data.rows.index) == [0, 1, 2]
        assert list(data.rejected["path"]) == [str(tmp_path / "1.png"), str(tmp_path / "3.png")]
        assert data.rejected["reason"][0].startswith("its content is text or CSV, not DICOM, PNG")
        assert "No such file" in data.rejected["reason"][1]
        with pytest.raises(ValueError, match=r"^[^ ]*1\.png: its content is text or CSV"):
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


def test_images_and_volumes_are_not_loaded_together(rows, tmp_path, monkeypatch):
    import nibabel as nib

    nib.save(
        nib.Nifti1Image(np.random.default_rng(0).random((4, 4, 4)).astype(np.float32), np.eye(4)), tmp_path / "v.nii"
    )
    shutil.copy(tmp_path / "v.nii", tmp_path / "4.png")  # by content, not by name
    for _ in range(2):
        with pytest.raises(ValueError, match=r"images \(.*0\.png, .*volumes \(.*4\.png, .* mixed; train and score"):
            load(rows, tmp_path)
        load(rows.head(4), tmp_path)
    cache.load(rows[4:], Preprocessing(8, window="unit"), folder=tmp_path / "cache", progress=False)
    with pytest.raises(ValueError, match="are mixed"):
        cache.load(rows, Preprocessing(8, window="unit"), folder=tmp_path / "cache", progress=False)


def test_what_takes_too_much_memory_is_rejected_and_the_others_are_not(rows, tmp_path, monkeypatch):
    real = Preprocessing.image

    def full(self, image):
        if image.source.name == "2.png":
            raise MemoryError
        return real(self, image)

    monkeypatch.setattr(Preprocessing, "image", full)
    data = load(rows, tmp_path)
    assert list(data.rows["label"]) == [0, 1, 3, 4]
    assert data.rejected["reason"].tolist() == ["there is not enough memory to decode it; make it smaller"]
    monkeypatch.undo()
    assert len(load(rows, tmp_path)) == 5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_pipes_devices_and_impossible_names_are_rejected(rows, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe")
    rows["mask"] = ["", str(tmp_path / "pipe"), "", "", ""]
    rows["path"] = [*rows["path"][:2], str(tmp_path / "link.png"), "/dev/zero", "a\0b.png"]
    data = load(rows, tmp_path)
    assert list(data.rows["label"]) == [0, 1] and list(data.rows["mask"]) == ["", ""]
    assert [reason.split(" (")[0] for reason in data.rejected["reason"]] == [
        "is a pipe", "is a device, not a regular file", "cannot be read",
        "as the mask of 1.png, which counts as without one: is a pipe"]  # fmt: skip


def test_masks_must_exist_and_fit(rows, tmp_path):
    rows["mask"] = [str(tmp_path / f"mask{i}.png") for i in range(3)] + ["", str(tmp_path / "mask.jpg")]
    PIL.Image.fromarray(noise(0) > 9).save(rows["mask"][0])
    PIL.Image.fromarray(noise(0, 20, 31) > 9).save(rows["mask"][1])
    PIL.Image.fromarray(noise(0, 20, 30, np.uint8)).save(rows["mask"][4])
    data = load(rows, tmp_path)
    assert list(data.rows["label"]) == list(range(5))  # no image is lost
    assert [bool(mask) for mask in data.rows["mask"]] == [True, False, False, False, False]
    assert list(data.rejected["path"]) == [rows["mask"][i] for i in (1, 2, 4)]
    wrong, absent, lossy = data.rejected["reason"]
    assert wrong == (
        "as the mask of 1.png, which counts as without one: has (height, width) (20, 31), its image (20, 30)"
    )
    assert absent == "as the mask of 2.png, which counts as without one: cannot be read (No such file or directory)"
    assert lossy.endswith("a mask cannot be JPEG, which blurs its edges; save it as PNG")
    with pytest.raises(ValueError, match=r"mask1\.png: as the mask of 1\.png"):
        load(rows, tmp_path, strict=True)
    assert not any(str(tmp_path) in reason for reason in (wrong, absent, lossy))  # a folder may tell of a patient
    PIL.Image.fromarray(noise(0) > 9).save(rows["mask"][1])
    assert list(load(rows, tmp_path).rows["mask"] != "") == [True, True, False, False, False]


def test_read_mask_is_true_where_not_zero(tmp_path):
    PIL.Image.fromarray(np.array([[0, 1, 255]], np.uint8)).save(tmp_path / "m.png")
    mask = masks.read(tmp_path / "m.png", None)
    assert mask.dtype == bool
    assert mask.tolist() == [[False, True, True]]


def test_cache_folder_comes_from_the_environment(rows, tmp_path, monkeypatch):
    monkeypatch.setenv("LOLIGO_CACHE", str(tmp_path / "elsewhere"))
    cache.load(rows, Preprocessing(8), progress=False)
    assert len(list((tmp_path / "elsewhere" / "images").iterdir())) == 5


def test_unwritable_or_full_folder_says_what_to_do(rows, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"cannot write the image cache in .*cache: .*set LOLIGO_CACHE"):
        load(rows, tmp_path)
    (tmp_path / "cache").unlink()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "write", full)
    with pytest.raises(OSError, match=r"No space left on device; free space there, or set LOLIGO_CACHE"):
        load(rows, tmp_path)
    assert stored(tmp_path) == []


def test_reading_takes_memory_for_a_batch_alone(tmp_path):
    levels = np.random.default_rng(0).integers(0, 65536, (512, 1, 256, 256), np.uint16)
    file = entries.Wanted("a.nii", "", tmp_path / "entry")
    header = Geometry((256, 256))
    entry = entries.write(file, Decoded(levels, header, (), (True,) * 512), lambda size: size > levels.nbytes)
    pixels = entries.Entries([entry], Preprocessing(256))
    tracemalloc.start()
    for start in range(0, 512, 16):
        assert np.array_equal(pixels[np.arange(start, start + 16)], levels[start : start + 16])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 256 * 256 * 2 * 3


def test_large_files_wait_for_each_other(monkeypatch):
    memory, at_once, most = _Memory(100), [], []

    def take(size):
        with memory.taken(size):
            at_once.append(size)
            most.append(sum(at_once))
            time.sleep(0.005)
            at_once.remove(size)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, [60, 60, 30, 500, 10, 100, 5, 5, 60]))  # one of 500 alone takes all there is
    assert max(total for total in most if total != 500) <= 100 and 500 in most
    with pytest.raises(MemoryError), memory.taken(100):
        raise MemoryError
    with memory.taken(100):
        pass


def test_a_mask_of_a_volume_that_does_not_fit_leaves_its_volume(tmp_path):
    import nibabel as nib

    volume, rows = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32), []
    for name, shape, place in (("good", (5, 6, 7), 0), ("small", (5, 6, 6), 0), ("aside", (5, 6, 7), 3)):
        for kind, values in (("image", volume), ("mask", np.ones(shape, np.uint8))):
            affine = np.eye(4)
            affine[0, 3] = place if kind == "mask" else 0
            nib.save(nib.Nifti1Image(values, affine), tmp_path / f"{name}_{kind}.nii")
        rows.append({"path": str(tmp_path / f"{name}_image.nii"), "mask": str(tmp_path / f"{name}_mask.nii")})
    data = cache.load(pd.DataFrame(rows), Preprocessing(8, window="unit"), folder=tmp_path / "cache", progress=False)
    assert len(data.rows) == 3 and list(data.rows["mask"]) == [rows[0]["mask"], "", ""]
    small, aside = data.rejected["reason"]
    assert small.startswith("as the mask of small_image.nii, which counts as without one: has shape (5, 6, 6)")
    assert aside.endswith("lies up to 3 mm beside its image aside_image.nii; save it on that grid")
