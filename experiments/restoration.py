"""How much faster exact restoration of codes is than the plain raster scan, with equal codes.

    python -m experiments.restoration --grid 20 --json experiments/results/restoration.json

The prior has the paper's size and fresh weights, made uneven; codes are sampled at random, and the limit is set so that
a tenth of them is replaced, as at the 90th percentile. The plain form runs the prior over the whole grid for each
place, all restorations of all images at once; both are timed in one process.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from experiments.common import machine
from loligo.files import write_json
from loligo.nn.autoregressive import PixelSnail, resample
from loligo.training.cost import commit


@torch.no_grad()
def raster_scan(prior: PixelSnail, codes: Tensor, limit: float, uniforms: Tensor) -> Tensor:
    """Restore by a pass over the whole grid for each of its places: (N, J, H, W)."""
    n, times = len(codes), len(uniforms)
    found, uniforms = codes.repeat_interleave(times, 0), uniforms.repeat(n, 1, 1)
    for row in range(codes.shape[1]):
        for column in range(codes.shape[2]):
            logits = prior(found)[:, :, row, column]
            high = torch.nn.functional.cross_entropy(logits, found[:, row, column], reduction="none") > limit
            cumulative = logits[high].softmax(1).cumsum(1)
            sampled = torch.searchsorted(cumulative, uniforms[high, row, column, None], right=True)[:, 0]
            found[high, row, column] = sampled.clamp(max=prior.codes - 1)
    return found.view(n, times, *codes.shape[1:])


def main() -> None:
    """Time both, check that they agree, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid", type=int, default=20)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--restorations", type=int, default=15)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    prior = PixelSnail(128).eval()
    torch.nn.init.normal_(prior.out.weight, std=0.3)
    codes = torch.randint(128, (given.images, given.grid, given.grid))
    uniforms = torch.rand(given.restorations, given.grid, given.grid)
    with torch.no_grad():
        limit = float(torch.nn.functional.cross_entropy(prior(codes), codes, reduction="none").quantile(0.9))
    resample(prior, codes, limit, uniforms[:1])  # warm
    start = time.perf_counter()
    fast = resample(prior, codes, limit, uniforms)
    middle = time.perf_counter()
    plain = raster_scan(prior, codes, limit, uniforms)
    end = time.perf_counter()
    row = {
        **{"grid": given.grid, "images": given.images, "restorations": given.restorations},
        "codes_equal": bool(torch.equal(fast, plain)),
        "replaced": round(float((plain != codes[:, None]).float().mean()), 4),
        "fast_seconds_per_image": round((middle - start) / given.images, 3),
        "plain_seconds_per_image": round((end - middle) / given.images, 3),
        "ratio": round((end - middle) / (middle - start), 2),
        **{"machine": machine(), "commit": commit(), "date": time.strftime("%F")},
    }
    print(row)
    write_json(row, given.json, indent=2)


if __name__ == "__main__":
    main()
