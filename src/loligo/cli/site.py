"""Commands for the site where a run is used: calibrate there, raise an alarm when images change, export."""

from __future__ import annotations

from pathlib import Path

from loligo import NOTICE
from loligo.cli.options import add_device, add_rate, check_paths, data_of, new_parser
from loligo.cli.parser import fail, parse


def recalibrate(argv: list[str]) -> None:
    """calibrate a run on 10 or more normal images of another site: loligo recalibrate RUN normals/ --out RUN2"""
    parser = new_parser(recalibrate, "loligo recalibrate RUN PATH... --out RUN2 [options]")
    parser.add_argument("run", metavar="RUN", help="run folder made by loligo train; it stays as it is")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="folder, files or manifest of normal images")
    parser.add_argument("--out", required=True, help="new run folder, complete in itself")
    parser.add_argument(
        "--shift",
        action="store_true",
        help="keep the run's own calibration scores, moved to the mean of the new ones: for few images, an assumption",
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first file that cannot be read")
    add_device(parser)
    add_rate(parser)
    given = parse(parser, argv)
    check_paths([given.run, *given.paths])
    from loligo import accelerate, recalibration
    from loligo.calibration import Calibration, outlook

    accelerate()
    run = recalibration.recalibrate(
        given.run,
        data_of(given.paths),
        given.out,
        shift=given.shift,
        false_alarm_rate=given.false_alarm_rate,
        strict=given.strict,
        device=given.device,
    )
    calibration, count = Calibration.load(run.files.calibration), run.about["data"]["calibration"]
    print(f"{run.folder}: calibrated on {count} normal images; p from {1 / (len(calibration.scores) + 1):.2g}")
    print(f"the threshold {calibration.told}")
    if said := outlook(len(calibration.scores), run.false_alarm_rate):
        print(said)
    if rejected := run.about["data"]["rejected"]:
        print(f"{rejected} images were left out; {run.files.rejected} says why")
    print(f"now: loligo score {run.folder} new/")


def drift(argv: list[str]) -> None:
    """raise an alarm when a site's images change: loligo drift STATE RUN PATH..."""
    parser = new_parser(drift, "loligo drift STATE RUN PATH... [options]")
    parser.epilog = (
        "The first call makes STATE of a reference window: consecutive, unselected studies of the site, diseased ones "
        "among them. Each later call adds studies, each once. Exit status 1 means alarm."
    )
    parser.add_argument("state", metavar="STATE", type=Path, help="file that remembers: drift.json")
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="folder, files or manifest of studies")
    parser.add_argument("--alpha", type=float, help="chance of a false alarm, ever (default: 0.01); of a new STATE")
    add_device(parser)
    given = parse(parser, argv)
    check_paths([given.run, *given.paths])
    if given.alpha is not None and given.state.exists():
        fail(f"--alpha cannot change what was begun; leave it out, or begin another file than {given.state}")
    from loligo import accelerate, monitoring

    accelerate()
    found = monitoring.follow(given.state, given.run, data_of(given.paths), alpha=given.alpha, device=given.device)
    print(f"{given.state}: {found.count} studies; {found.told}. {NOTICE}")
    if found.alarms:
        raise SystemExit(1)


def export(argv: list[str]) -> None:
    """write a run as a model for ONNX Runtime, OpenVINO or torch: loligo export RUN --out model.onnx"""
    parser = new_parser(export, "loligo export RUN --out model.onnx|model.xml|model.pt2 [options]")
    parser.add_argument("run", metavar="RUN", help="run folder made by loligo train")
    parser.add_argument("--out", required=True, help="new file; its manifest (.json) and model card (.md) go beside it")
    parser.add_argument("--format", choices=["onnx", "openvino", "torch"], help="as the ending of --out says")
    parser.add_argument("--int8", action="store_true", help="quantise by the training images (OpenVINO), if that holds")
    given = parse(parser, argv)
    check_paths([given.run])
    from loligo import accelerate, exporting

    accelerate()
    out = exporting.export(given.run, given.out, given.format, int8=given.int8)
    print(f"{out}: scores as {given.run} does; {out.with_suffix('.json')} says what goes in and comes out. {NOTICE}")
    if out.suffix != ".pt2":
        print(f"now: loligo score {out} new/")
