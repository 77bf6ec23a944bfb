"""The decoder's child: what a hostile file may cost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from experiments.pacs_servers import radiograph, wait

from loligo.data.header_scope import HeaderScope
from loligo.data.preprocessing import Preprocessing
from loligo.pacs.decode import Decoder, Hostile


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    one = Decoder(Preprocessing(32, headers=HeaderScope(("CR", "DX"))), seconds=120, memory=2048)
    yield one
    one.close()


def test_reasons_and_paths_come_back_and_pixels_lie_in_the_folder(decoder: Decoder, tmp_path: Path) -> None:
    good = radiograph(tmp_path / "a", "0.1", 64)
    other = radiograph(tmp_path / "b", "0.2", 64, SOPClassUID="1.2.840.10008.5.1.4.1.1.1.2", Modality="MG")
    cut = tmp_path / "c"
    cut.write_bytes(radiograph(tmp_path / "d", "0.3", 64).read_bytes()[:-1000])
    found = decoder([good, other, cut], tmp_path / "work")
    assert found.paths == (str(good),)
    assert "its Modality (0008,0060) is MG" in found.reasons[0] and "cut short" in found.reasons[1]
    assert not any(str(tmp_path) in reason for reason in found.reasons)
    assert len(list((tmp_path / "work" / "images").iterdir())) == 1
    assert decoder([other], tmp_path / "none").paths == ()


def test_too_much_memory_is_a_reason(tmp_path: Path) -> None:
    side = 8000
    pixels = np.zeros(side * side, "<u2").tobytes()
    path = radiograph(tmp_path / "a", "0.1", 8, Rows=side, Columns=side, PixelData=pixels)
    small = Decoder(Preprocessing(32), seconds=120, memory=256)
    try:
        assert "not enough memory" in small([path], tmp_path / "work").reasons[0]
        assert small([radiograph(tmp_path / "b", "0.2", 64)], tmp_path / "work").paths
    finally:
        small.close()


def test_a_child_that_takes_too_long_or_dies_costs_one_study(decoder: Decoder, tmp_path: Path) -> None:
    path = radiograph(tmp_path / "a", "0.1", 64)
    assert decoder([path], tmp_path / "work").paths
    child = decoder._child.pid
    os.kill(child, signal.SIGSTOP)  # it hangs
    decoder.seconds = 1
    with pytest.raises(Hostile, match="decoding took longer than 1 s"):
        decoder([path], tmp_path / "work")
    decoder.seconds = 120
    wait(lambda: not Path(f"/proc/{child}").exists(), 10)
    assert decoder([path], tmp_path / "work").paths
    child = decoder._child.pid
    os.kill(child, signal.SIGSTOP)
    threading.Thread(target=lambda: (time.sleep(0.5), os.kill(child, signal.SIGKILL))).start()
    with pytest.raises(Hostile, match=r"ended the decoder \(exit status -9\)"):
        decoder([path], tmp_path / "work")
    assert decoder([path], tmp_path / "work").paths


def test_it_does_not_end_by_what_ends_its_worker_gracefully(decoder: Decoder, tmp_path: Path) -> None:
    path = radiograph(tmp_path / "a", "0.1", 64)
    decoder([path], tmp_path / "work")
    child = decoder._child.pid
    os.kill(child, signal.SIGTERM)
    os.kill(child, signal.SIGINT)
    assert decoder([path], tmp_path / "work").paths and decoder._child.pid == child
