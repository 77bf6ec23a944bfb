"""The command line: one function a subcommand; each imports what it needs, so that --help is quick."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from loligo import NOTICE, __version__
from loligo.names import nearest


def index(argv: list[str]) -> None:
    """write a manifest of a folder of images: loligo index folder|zhanglab|chexpert|covidx|mood DIR -o manifest.csv"""
    from loligo.data import manifest, sources

    name = _leading("index", argv, "SOURCE", sorted(sources.SOURCES))
    parser = _parser("index", f"loligo index {name} DIR -o manifest.csv [options]")
    parser.add_argument("root", metavar="DIR", type=Path, help="folder that holds the images")
    parser.add_argument("-o", "--out", type=Path, required=True, help="manifest to write: .csv or .parquet")
    function = sources.SOURCES[name]
    keys = parser.add_function_arguments(function, skip={"root"})
    given = _parse(parser, argv[1:])
    frame = function(given.root, **{key: given[key] for key in keys})
    manifest.write(manifest.check(frame), given.out)
    counts = frame.groupby(["split", frame["label"].map({0: "normal", 1: "abnormal"}).fillna("unknown")]).size()
    for (split, label), count in zip(counts.index, counts, strict=True):
        print(f"{split:12} {label:9} {count:7}")
    print(f"{given.out}: {len(frame)} images")


def train(argv: list[str]) -> None:
    """learn from normal images: loligo train METHOD --data normals/ --out runs/a"""
    from loligo import methods

    name = _leading("train", argv, "METHOD", methods.names())
    parser = _parser("train", f"loligo train {name} --data PATH --out RUN [options]")
    parser.add_argument("--data", nargs="+", required=True, help="manifest, folder of normals, or files")
    parser.add_argument("--out", required=True, help="run folder to write; a training cut off there goes on")
    parser.add_argument("--strict", action="store_true", help="stop at the first file that cannot be read")
    given = _parse_training(parser, name, argv[1:])
    api = _api()
    run = api.train(name, _data(given.data), given.out, **_training(given), strict=given.strict)
    held_out, rate = run.about["data"]["calibration"], run.about["data"]["false_alarm_rate"]
    what = "volumes" if "spacing" in run.about["data"] else "images"
    print(f"trained on {run.about['data']['train']} normal {what}; {held_out} held out: false-alarm rate {rate:.1%}")
    print(f"now: loligo score {run.folder} new/")
    _tell_rejected(run.folder, "training")


def _parse_training(parser: Any, method: str, argv: list[str], skip: set[str] | None = None) -> Any:
    """Add the options of a method and of its training, but for those of the latter in ``skip``, and parse all."""
    from loligo import methods
    from loligo.config import PreprocessingConfig, TrainConfig
    from loligo.runs.settings import defaults

    kind = methods.get(method)
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    parser.add_argument(
        "--preset", type=str, help=f"named set of options, others on top: {', '.join(sorted(kind.presets))}"
    )
    _add_rate(parser, "proportion of normal images that may be flagged (default: 0.05)")
    parser.add_class_arguments(kind.Config, "method")
    parser.add_class_arguments(TrainConfig, "train", skip=skip or set())
    parser.add_class_arguments(PreprocessingConfig, "preprocessing")
    options, training = defaults(kind, _named_preset(kind, argv))
    own = {f"method.{key}": value for key, value in options.items()}
    own |= {f"train.{key}": value for key, value in training.items() if key not in (skip or ())}
    parser.set_defaults(own)
    return _parse(parser, argv)


def _named_preset(kind: Any, argv: list[str]) -> str | None:
    """Return the preset that the arguments, or a file of options among them, name: its values are the defaults."""
    found = None
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        option, _, value = word.partition("=")
        if option == "--config":
            found = _check_options(Path(value or following)).get("preset", found)
        elif option == "--preset":
            found = value or following
    if found and found not in kind.presets:
        _fail(f"{kind.__name__.lower()} has no preset {found!r}; {nearest(found, kind.presets)}")
    return found


def _check_options(path: Path) -> dict[str, Any]:
    """Read a file of options; say what is wrong with it as a whole, of single options the parser does."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError):
        values = None
    example = "write a YAML file such as 'train: {epochs: 3}'"
    if not isinstance(values, dict):
        _fail(f"{path} holds no options; {example}")
    if "method_config" in values:
        _fail(f"{path} is the record of a run; copy its method_config as method:, its preset and its train: to a file")
    for key, kind in {"method": dict, "train": dict, "preprocessing": dict, "index": dict, "preset": str}.items():
        if not isinstance(values.get(key, kind()), kind):
            _fail(f"{path} has {key} {values[key]!r}; it must be {'a name' if kind is str else 'options'}: {example}")
    return values


def _training(given: Any) -> dict[str, Any]:
    """Return what was given of the options that `_parse_training` adds, as arguments of the verbs."""
    return {
        "preset": given.preset,
        "options": vars(given["method"].clone()),
        "train": vars(given["train"].clone()),
        "preprocessing": vars(given["preprocessing"].clone()),
        **({} if given.false_alarm_rate is None else {"false_alarm_rate": given.false_alarm_rate}),
    }


def score(argv: list[str]) -> None:
    """score images with a trained run: loligo score RUN PATH... (without PATH: its manifest's test split)"""
    parser = _parser("score", "loligo score RUN [PATH ...] [options]")
    parser.add_argument("run", metavar="RUN", help="run folder made by loligo train")
    parser.add_argument(
        "paths", metavar="PATH", nargs="*", default=[], help="folder, files, manifest; else the test split"
    )
    parser.add_argument("--out", help="folder for scores.csv and maps; else the run folder")
    parser.add_argument("--splits", nargs="+", help="splits of a manifest to score; else all, test of the run's own")
    parser.add_argument(
        "--maps",
        choices=["image", "network", "none"],
        default="image",
        help="heat maps on the grid of each image, on the network's (smaller files), or none",
    )
    parser.add_argument("--batch_size", type=int, default=16, help="images at once; no score depends on it")
    parser.add_argument("--strict", action="store_true", help="stop at the first file that cannot be read")
    _add_device(parser)
    _add_rate(parser)
    parser.add_argument("--layout", choices=["loligo", "mood"], default="loligo", help="mood: for that challenge too")
    given = _parse(parser, argv)
    api = _api()
    table = api.score(
        given.run,
        _data(given.paths) if given.paths else None,
        given.out,
        splits=given.splits,
        maps=given.maps,
        batch_size=given.batch_size,
        strict=given.strict,
        device=given.device,
        false_alarm_rate=given.false_alarm_rate,
        layout=given.layout,
    )
    folder = Path(given.out or given.run)
    print(f"{folder / 'scores.csv'}: {len(table)} images, {int(table['flag'].sum())} flagged. {NOTICE}")
    _tell_rejected(folder, "scoring")


def evaluate(argv: list[str]) -> None:
    """measure scores against labels, under the clean and the paper protocol: loligo evaluate RUN"""
    parser = _parser("evaluate", "loligo evaluate RUN [options]")
    parser.add_argument("run", metavar="RUN", help="run folder with scores.csv")
    parser.add_argument("--results", help="table (CSV) to which a row a protocol is appended")
    _add_rate(parser)
    given = _parse(parser, argv)
    print(metrics_table(_api().evaluate(given.run, given.results, given.false_alarm_rate)))


def metrics_table(found: dict[str, Any]) -> str:
    """Return the metrics of both protocols side by side as text."""
    clean, paper = found["clean"], found["paper"]
    lines = [f"{'':22}{'clean':>22}{'paper':>22}"]
    intervals = [f"{p['auc']:.3f} ({p['auc_low']:.3f}-{p['auc_high']:.3f})" for p in (clean, paper)]
    lines.append(f"{'AUC (95 % interval)':22}{intervals[0]:>22}{intervals[1]:>22}")
    for key in ("ap", "accuracy", "f1", "sensitivity", "specificity"):
        lines.append(f"{key:22}{clean[key]:>22.3f}{paper[key]:>22.3f}")
    lines += [f"clean: {clean['note']}", f"paper: {paper['note']}"]
    for title in ("pixel", "kinds"):
        if title in found:
            lines.append(f"{title}: " + ", ".join(f"{k} {v:.4g}" for k, v in found[title].items()))
    return "\n".join([*lines, NOTICE])


def report(argv: list[str]) -> None:
    """write report.html, one file with all results and pictures: loligo report RUN"""
    parser = _parser("report", "loligo report RUN")
    parser.add_argument("run", metavar="RUN", help="run folder with scores.csv")
    given = _parse(parser, argv)
    print(_api().report(given.run))


def sheet(argv: list[str]) -> None:
    """write one page on one image, PDF or HTML: loligo sheet RUN IMAGE [-o case.pdf]"""
    parser = _parser("sheet", "loligo sheet RUN IMAGE [-o case.pdf|case.html]")
    parser.add_argument("run", metavar="RUN", help="folder of a trained run")
    parser.add_argument("image", metavar="IMAGE", help="image file")
    parser.add_argument("-o", "--out", help="page to write: .pdf or .html (default: the image's name with .pdf, here)")
    _add_device(parser)
    _add_rate(parser)
    given = _parse(parser, argv)
    made = _api().sheet(given.run, given.image, given.out, device=given.device, false_alarm_rate=given.false_alarm_rate)
    print(f"{made}. {NOTICE}")


def contaminate(argv: list[str]) -> None:
    """train on sets with 0 to 50 % abnormal images: loligo contaminate METHOD --data M --abnormal PATH --out DIR"""
    from loligo import methods

    name = _leading("contaminate", argv, "METHOD", methods.names())
    from loligo import contamination as contaminate

    parser = _parser("contaminate", f"loligo contaminate {name} --data PATH --abnormal PATH --out DIR [options]")
    parser.add_argument("--data", nargs="+", required=True, help="manifest or folder, with a labelled test split")
    parser.add_argument("--abnormal", nargs="+", required=True, help="manifest, folder or files of abnormal images")
    parser.add_argument("--out", required=True, help="folder for the runs, contamination.csv and contamination.png")
    parser.add_argument("--rates", nargs="+", type=float, default=list(contaminate.RATES), help="each in [0, 1)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of samples and trainings")
    given = _parse_training(parser, name, argv[1:], skip={"seed"})
    data, abnormal = _data(given.data), _data(given.abnormal)
    sets = {"rates": given.rates, "seeds": given.seeds}
    contaminate.contaminate(name, data, abnormal, given.out, **sets, **_training(given))
    print(f"{Path(given.out) / 'contamination.png'}. {NOTICE}")


def benchmark(argv: list[str]) -> None:
    """compare methods, with intervals and cost: loligo benchmark --methods a,b --datasets m.csv --out DIR"""
    if argv[:1] == ["compare"]:
        parser = _parser("benchmark", "loligo benchmark compare A B")
        for name in ("A", "B"):
            parser.add_argument(name.lower(), metavar=name, help="folder of a benchmark, or its benchmark.json")
        given = _parse(parser, argv[1:])
        from loligo import benchmark

        print(benchmark.table_text(benchmark.compare(given.a, given.b)), NOTICE, sep="\n")
        return
    parser = _parser("benchmark", "loligo benchmark --methods M --datasets D --out DIR [options] | compare A B")
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    parser.add_argument(
        "--methods", nargs="+", required=True, help="METHOD or METHOD:PRESET, split at commas or spaces"
    )
    parser.add_argument("--datasets", nargs="+", required=True, help="manifest.csv, NAME=manifest.csv, NAME=DIR, NAME")
    parser.add_argument("--out", required=True, type=Path, help="folder; what is finished there is not run again")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each method: seeds 0, 1, ...")
    parser.add_argument("--preset", help="preset of each method that has it")
    parser.add_argument("--variants", type=dict, default={}, help="NAME: options, for METHOD:NAME; best in a YAML file")
    parser.add_argument("--set", nargs="+", default=[], help="train.epochs=5 for all, squid.slots=100 for one")
    parser.add_argument("--budget", help="training time, such as 30min, turned into a number of epochs by measuring")
    parser.add_argument("--robustness", nargs="+", default=[], help="contamination, sizes, corruptions")
    parser.add_argument("--only", help="the one cell to run, by name: DATASET/METHOD/seed_0")
    parser.add_argument("--workers", type=int, help="cells at once, on one thread each (default: one a core)")
    given = _parse(parser, argv)
    from loligo import benchmark

    words = {key: value for key, value in vars(given).items() if key != "config"}
    config = str(given.config[0]) if given.config else None
    found = benchmark.run(benchmark.parse(**words, config=config), lambda line: print(line, flush=True))
    print(f"{found.page}. {NOTICE}")
    print(f"{found.failed} of {found.cells} cells failed" + (f"; reasons: {found.page}" if found.failed else ""))
    if found.failed == found.cells:
        raise SystemExit(1)


def experiment(argv: list[str]) -> None:
    """index, train, score, evaluate and report in one: loligo experiment DATASET METHOD --data DIR --out RUN"""
    from loligo import experiment, methods

    dataset = _leading("experiment", argv, "DATASET", sorted(experiment.DATASETS))
    name = _leading("experiment", argv[1:], "METHOD", methods.names(), "second")
    parser = _parser("experiment", f"loligo experiment {dataset} {name} --data DIR --out RUN [options]")
    parser.add_argument("--data", required=True, help="folder that holds the data set")
    parser.add_argument("--out", required=True, help="run folder to write; a training cut off there goes on")
    parser.add_argument("--results", help="table (CSV) to which a row a protocol is appended")
    keys = parser.add_function_arguments(experiment.DATASETS[dataset], "index", skip={"root"})
    given = _parse_training(parser, name, argv[2:])
    index = {key.removeprefix("index."): given[key] for key in keys}
    found = experiment.run(dataset, name, given.data, given.out, index=index, results=given.results, **_training(given))
    print(metrics_table(found))
    print(Path(given.out) / "report.html")
    _tell_rejected(Path(given.out), "training", "scoring")


def synthesize(argv: list[str]) -> None:
    """plant anomalies with known masks in normal images, to test on: loligo synthesize PATH... -o DIR"""
    from loligo.data import manifest, synthetic, synthetic_set

    parser = _parser("synthesize", "loligo synthesize PATH... -o DIR [options]")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="manifest, folder or files of normal images")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for images, masks and manifest.csv")
    parser.add_argument("--kinds", nargs="+", default=list(synthetic.KINDS), help="each in a copy of each image")
    parser.add_argument("--split", default="test", help="of the manifest, whose normal images are taken")
    parser.add_argument("--seed", type=int, default=0, help="of the anomalies")
    given = _parse(parser, argv)
    rows = manifest.resolve(_data(given.paths), purpose="score").accepted()
    frame = synthetic_set.write(given.out, rows, kinds=given.kinds, split=given.split, seed=given.seed)
    count = int(frame["label"].sum())
    print(f"{given.out / 'manifest.csv'}: {len(frame) - count} normal images, {count} abnormal")


def demo(argv: list[str]) -> None:
    """train squid, ae and gaussian on made digits, score them, write the report: loligo demo [--out runs/demo]"""
    from loligo import demo

    parser = _parser("demo", "loligo demo [options]")
    parser.add_function_arguments(demo.run)
    demo.run(**vars(_parse(parser, argv)))


def cache(argv: list[str]) -> None:
    """say where decoded images are kept, which are patients' pixels, or remove them: loligo cache [clear]"""
    parser = _parser("cache", "loligo cache [clear]")
    parser.add_argument("what", nargs="?", choices=["clear"], help="remove all of it; it is made again when needed")
    given = _parse(parser, argv)
    from loligo.data import cache

    entries, held = cache.size()
    print(f"{cache.home()}: {entries} entries, {held:,} bytes of decoded images")
    if given.what:
        print(f"removed {cache.clear():,} bytes")


def list_methods(argv: list[str]) -> None:
    """list the methods"""
    from loligo import methods

    _parse(_parser("methods", "loligo methods"), argv)
    lines = methods.list_methods()
    width = max(map(len, lines))
    for name, line in lines.items():
        print(f"{name:{width}}  {line}")


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "index": index,
    "train": train,
    "score": score,
    "evaluate": evaluate,
    "report": report,
    "sheet": sheet,
    "experiment": experiment,
    "benchmark": benchmark,
    "contaminate": contaminate,
    "synthesize": synthesize,
    "demo": demo,
    "cache": cache,
    "methods": list_methods,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a subcommand; what is wrong with input is told in one line, with exit status 2."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(usage())
        return
    if args[0] == "--version":
        print(f"loligo {__version__}")
        return
    if args[0] not in COMMANDS:
        _fail(f"there is no command {args[0]!r}; {nearest(args[0], COMMANDS)}")
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        COMMANDS[args[0]](args[1:])
    except (ValueError, OSError, FloatingPointError, ImportError, MemoryError) as error:
        if os.environ.get("LOLIGO_DEBUG"):
            raise
        _fail(str(error) or "there is not enough memory")
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on with a training")


def usage() -> str:
    """Return the help of the command itself."""
    lines = [f"{name:11} {(command.__doc__ or '').strip()}" for name, command in COMMANDS.items()]
    head = "loligo: unsupervised anomaly detection for radiology. Learn from normal images, score new ones.\n"
    return "\n".join([head, *lines, "", "loligo COMMAND --help shows its options. " + NOTICE])


def _fail(message: str) -> NoReturn:
    print(f"loligo: {message}", file=sys.stderr)
    raise SystemExit(2)


def _leading(command: str, argv: list[str], what: str, allowed: list[str], place: str = "first") -> str:
    """Return the first argument, which must be one of ``allowed``: the others depend on it."""
    if argv[:1] in (["-h"], ["--help"]):
        print(f"{COMMANDS[command].__doc__}\n\n{what}: one of {', '.join(allowed)}; --help after it shows its options")
        raise SystemExit(0)
    if not argv or argv[0].startswith("-"):
        _fail(f"the {place} argument is {what}: one of {', '.join(allowed)}")
    if argv[0] not in allowed:
        _fail(f"there is no {what.lower()} {argv[0]!r}; {nearest(argv[0], allowed)}")
    return argv[0]


def _parser(name: str, use: str) -> Any:
    import jsonargparse

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    doc = (COMMANDS[name].__doc__ or "").split(":")[0]
    return jsonargparse.ArgumentParser(
        prog=f"loligo {name}",
        usage=use,
        description=doc,
        exit_on_error=False,
        print_config=None,  # it knows no presets, and would undo them where it is read back
    )


def _parse(parser: Any, argv: list[str]) -> Any:
    """Parse; an unknown option is answered with the nearest known one."""
    known = [option for option in parser._option_string_actions if option.startswith("--")]
    plain = [option.removeprefix("--") for option in known]
    for word in argv:
        option = word.split("=")[0]
        if option.startswith("--") and option not in known:
            _fail(f"{parser.prog} has no option {option}; {nearest(option, known)}")
    try:
        return parser.parse_args(argv)
    except (argparse.ArgumentError, TypeError) as error:
        said = " ".join(str(error).split())
        if wrong := re.search(r"(?:Group '(.+)' does not accept o|O)ption '(.+?)'", said):  # of a YAML file
            said += "; " + nearest(".".join(filter(None, wrong.groups())), plain)
        _fail(said)


def _api() -> Any:
    """Return the verbs, in a process made fast for them."""
    from loligo import accelerate, api

    accelerate()
    return api


def _add_device(parser: Any) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, or another accelerator of PyTorch")


def _add_rate(parser: Any, meaning: str = "proportion of normal images flagged, in place of the run's") -> None:
    parser.add_argument("--false_alarm_rate", type=float, help=meaning)


def _data(paths: list[str]) -> str | list[str]:
    return paths[0] if len(paths) == 1 else paths


def _tell_rejected(folder: Path, *during: str) -> None:
    from loligo.runs.folder import RunFolder

    run = RunFolder(folder)
    rejected = run.read_rejected()
    if rejected is not None and (count := int(rejected["during"].isin(during).sum())):
        print(f"{count} files could not be used; see {run.rejected} for the reasons", file=sys.stderr)
