"""The command line: one function a subcommand; each imports what it needs, so that --help is quick."""

from __future__ import annotations

import csv
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from loligo import NOTICE, __version__
from loligo.cli.options import (
    add_device,
    add_layout,
    add_rate,
    check_methods,
    check_new,
    check_paths,
    check_settings,
    data_of,
    layout_arguments,
    leading,
    new_parser,
    parse_training,
    part,
    training_arguments,
    value_of,
    with_file,
)
from loligo.cli.parser import complete, fail, parse
from loligo.cli.site import drift, export, recalibrate
from loligo.names import nearest


def index(argv: list[str]) -> None:
    """write a manifest of a folder of images: loligo index folder|dicom|zhanglab|chexpert|covidx|mood DIR -o M.csv"""
    from loligo.data import manifest, sources

    name = leading(index, argv, "SOURCE", sorted(sources.SOURCES))
    parser = new_parser(index, f"loligo index {name} DIR -o manifest.csv [options]")
    parser.add_argument("root", metavar="DIR", type=Path, help="folder that holds the images")
    parser.add_argument("-o", "--out", type=Path, required=True, help="manifest to write: .csv or .parquet")
    function = sources.SOURCES[name]
    of_folder = {"normal", "abnormal", "masks", "patient"} if name in ("folder", "dicom") else set()
    parser.add_function_arguments(function, skip={"root"} | of_folder)
    if of_folder:
        add_layout(parser)
    given = vars(parse(parser, argv[1:]))
    root, out = given.pop("root"), given.pop("out")
    check_paths([root])
    frame = function(root, **given)
    manifest.write(manifest.check(frame), out)
    counts = frame.groupby(["split", frame["label"].map({0: "normal", 1: "abnormal"}).fillna("unknown")]).size()
    for (split, label), count in zip(counts.index, counts, strict=True):
        print(f"{split:12} {label:9} {count:7}")
    print(f"{out}: {len(frame)} images")


def train(argv: list[str]) -> None:
    """learn from normal images: loligo train [METHOD] --data normals/ --out runs/a"""
    from loligo import methods
    from loligo.config import HELD_OUT

    name = leading(train, argv, "METHOD", methods.names(), default=methods.DEFAULT)
    parser = new_parser(train, f"loligo train {name} --data PATH --out RUN [options]")
    parser.add_argument("--data", nargs="+", required=True, help="manifest, folder of normals, or files")
    parser.add_argument("--out", required=True, help="run folder to write; a training cut off there resumes")
    parser.add_argument("--strict", action="store_true", help="stop at the first file that cannot be read")
    parser.add_argument("--calibration", nargs="+", help="normal images to calibrate on; else a part of the data is")
    parser.add_argument("--held_out", type=float, default=HELD_OUT, help="that part, of the patients")
    parser.add_argument(
        "--folds", type=int, help="score each normal by one of so many models that did not see it instead"
    )
    add_layout(parser)
    given = parse_training(parser, name, argv[1:])
    check_paths([*given.data, *(given.calibration or [])])
    check_new(given.out)
    _tell_what_begins(name, given.preset)
    api = _api()
    run = api.train(
        name,
        data_of(given.data),
        given.out,
        **training_arguments(given),
        **layout_arguments(given),
        calibration=data_of(given.calibration) if given.calibration else None,
        held_out=given.held_out,
        folds=given.folds,
        strict=given.strict,
    )
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes the first writes and tells
    data = run.about["data"]
    what, count, rate = "volumes" if "spacing" in data else "images", data["calibration"], data["false_alarm_rate"]
    how = f"{count} scored by {data['folds']} models that did not see them" if data["folds"] else f"{count} held out"
    print(f"trained on {data['train']} normal {what}; {how}: false-alarm rate {rate:.1%}, p from {1 / (count + 1):.2g}")
    print(f"now: loligo score {run.folder} new/")
    _tell_rejected(run.folder)


def score(argv: list[str]) -> None:
    """score images with a trained run: loligo score RUN PATH... (without PATH: its manifest's test split)"""
    parser = new_parser(score, "loligo score RUN [PATH ...] [options]")
    parser.add_argument("run", metavar="RUN", help="run folder, or an exported model, .onnx or .xml")
    parser.add_argument(
        "paths", metavar="PATH", nargs="*", default=[], help="folder, files, manifest; else the test split"
    )
    parser.add_argument(
        "--out", help="new folder for scores.csv and maps; else RUN/scores/NAME, named as what is scored"
    )
    parser.add_argument("--splits", nargs="+", help="splits of a manifest to score; else all, test of the run's own")
    parser.add_argument(
        "--maps",
        choices=["image", "network", "none"],
        default="image",
        help="heat maps on the grid of each image, on the network's (smaller files), or none",
    )
    parser.add_argument("--batch_size", type=int, default=16, help="images at once; no score depends on it")
    parser.add_argument("--strict", action="store_true", help="stop at the first file that cannot be read")
    add_device(parser)
    add_rate(parser)
    parser.add_argument("--layout", choices=["loligo", "mood"], default="loligo", help="mood: for that challenge too")
    parser.add_argument(
        "--scope",
        choices=["checked", "any"],
        default="checked",
        help="any: also images that show something else, or whose DICOM header says so",
    )
    parser.add_argument("--q_value", action="store_true", help="add the false-discovery rate over all images given")
    parser.add_argument("--dicom", help="folder for DICOM objects of DICOM images, such as a structured report")
    parser.add_argument("--dicom_objects", nargs="+", help="of sr, pm, seg, ko, pdf, sc (default: sr,pm,seg,ko)")
    given = parse(parser, argv)
    if given.dicom_objects and not given.dicom:
        fail("--dicom_objects says what to write, not where; name a folder with --dicom")
    kinds = [kind for words in given.dicom_objects or [] for kind in words.split(",") if kind]
    from loligo import score_files
    from loligo.runs.exported import is_model

    if not (exported := is_model(given.run)):  # torch, which an exported model does without
        _api()
    table = score_files.score(
        given.run,
        data_of(given.paths) if given.paths else None,
        given.out,
        splits=given.splits,
        maps=given.maps,
        batch_size=given.batch_size,
        strict=given.strict,
        device=given.device,
        false_alarm_rate=given.false_alarm_rate,
        layout=given.layout,
        scope=given.scope,
        q_value=given.q_value,
        dicom=given.dicom,
        **({"dicom_objects": kinds} if kinds else {}),
    )
    folder, flagged = Path(table.attrs["folder"]), int(table["flag"].sum())
    print(f"{folder / 'scores.csv'}: {len(table)} images, {flagged} flagged, the most abnormal first. {NOTICE}")
    print(f"the threshold {table.attrs['threshold']}")
    if given.dicom:
        print(f"{given.dicom}: {table.attrs['objects']} DICOM objects; {folder / 'objects.csv'} says of which images")
    if not exported:
        print(f"now: loligo report {folder}")
    _tell_rejected(folder)
    if remark := table.attrs["remark"]:
        print(remark, file=sys.stderr)


def evaluate(argv: list[str]) -> None:
    """measure scores against labels, under the clean and the paper protocol: loligo evaluate RUN"""
    parser = new_parser(evaluate, "loligo evaluate RUN [options]")
    parser.add_argument("run", metavar="RUN", help="folder of a scoring, or of a run, of which the latest is meant")
    parser.add_argument("--results", help="table (CSV) to which a row a protocol is appended")
    add_rate(parser)
    given = parse(parser, argv)
    print(metrics_table(_api().evaluate(given.run, given.results, given.false_alarm_rate)))


def metrics_table(found: dict[str, Any]) -> str:
    """Return the metrics of both protocols side by side as text."""
    clean, paper = found["clean"], found["paper"]
    lines = [f"{'':22}{'clean':>22}{'paper':>22}"]
    intervals = [f"{p['auc']:.3f} ({p['auc_low']:.3f}-{p['auc_high']:.3f})" for p in (clean, paper)]
    lines.append(f"{'AUC (95 % interval)':22}{intervals[0]:>22}{intervals[1]:>22}")
    lines += [f"{name}: {said}" for name in ("clean", "paper") if (said := _against_guessing(found[name]))]
    for key in ("ap", "accuracy", "f1"):
        lines.append(f"{key:22}{clean[key]:>22.3f}{paper[key]:>22.3f}")
    for key in ("sensitivity", "specificity"):
        rates = [f"{p[key]:.3f} ({p[f'{key}_low']:.3f}-{p[f'{key}_high']:.3f})" for p in (clean, paper)]
        lines.append(f"{key:22}{rates[0]:>22}{rates[1]:>22}")
    lines += [f"clean: {clean['note']}", f"paper: {paper['note']}"]
    for title in ("pixel", "kinds"):
        if title in found:
            lines.append(f"{title}: " + ", ".join(f"{k} {v:.4g}" for k, v in found[title].items()))
    return "\n".join([*lines, NOTICE])


def _against_guessing(protocol: dict[str, Any]) -> str:
    from loligo.evaluation.metrics import against_guessing

    return against_guessing(protocol["auc_low"], protocol["auc_high"])


def report(argv: list[str]) -> None:
    """write report.html, one file with all results and pictures: loligo report RUN"""
    parser = new_parser(report, "loligo report RUN")
    parser.add_argument("run", metavar="RUN", help="folder of a scoring, or of a run, of which the latest is meant")
    given = parse(parser, argv)
    print(_api().report(given.run))


def sheet(argv: list[str]) -> None:
    """write a page on each image, PDF or HTML: loligo sheet RUN IMAGE... | RUN --flagged [-o case.pdf]"""
    parser = new_parser(sheet, "loligo sheet RUN IMAGE... | RUN --flagged [-o case.pdf|case.html]")
    parser.add_argument("run", metavar="RUN", help="run folder, or that of a scoring")
    parser.add_argument("--flagged", action="store_true", help="of all images that the scoring flagged")
    if "--flagged" not in argv:
        parser.add_argument("images", metavar="IMAGE", nargs="+", help="image or volume files; or --flagged")
    parser.add_argument("-o", "--out", help="file to write: .pdf or .html (default: the image's name with .pdf, here)")
    add_device(parser)
    add_rate(parser)
    given = parse(parser, argv)
    images = None if given.flagged else given.images
    made = _api().sheet(given.run, images, given.out, device=given.device, false_alarm_rate=given.false_alarm_rate)
    print(f"{made}. {NOTICE}")


def deidentify(argv: list[str]) -> None:
    """write DICOM images without what tells of a patient: loligo deidentify PATH... --out DIR"""
    parser = new_parser(deidentify, "loligo deidentify PATH... --out DIR [options]")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="folder or DICOM files")
    parser.add_argument("--out", required=True, help="new folder, for files by patient and series, and rejected.csv")
    parser.add_argument("--burned_in", action="store_true", help="also images that may have text burnt into them")
    given = parse(parser, argv)
    check_paths(given.paths)
    from loligo.dicom.deidentify import deidentify as write

    written, _ = write(data_of(given.paths), given.out, given.burned_in)
    print(f"{given.out}: {len(written)} files without names, ids, dates and UIDs. Pixels stay: look for text in them")
    _tell_rejected(Path(given.out))


def contaminate(argv: list[str]) -> None:
    """train on sets with 0 to 50 % abnormal images: loligo contaminate METHOD --data M --abnormal PATH --out DIR"""
    from loligo import methods

    name = leading(contaminate, argv, "METHOD", methods.names())
    parser = new_parser(contaminate, f"loligo contaminate {name} --data PATH --abnormal PATH --out DIR [options]")
    parser.add_argument("--data", nargs="+", required=True, help="manifest or folder, with a labelled test split")
    parser.add_argument("--abnormal", nargs="+", required=True, help="manifest, folder or files of abnormal images")
    parser.add_argument("--out", required=True, help="folder for the runs, contamination.csv and contamination.png")
    parser.add_argument("--rates", nargs="+", type=float, help="each in [0, 1) (default: 0 to 0.5 by 0.1)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of samples and trainings")
    given = parse_training(parser, name, argv[1:], skip=["seed"])
    check_paths([*given.data, *given.abnormal])
    from loligo import contamination

    data, abnormal = data_of(given.data), data_of(given.abnormal)
    sets = {"rates": given.rates or contamination.RATES, "seeds": given.seeds}
    contamination.contaminate(name, data, abnormal, given.out, **sets, **training_arguments(given))
    print(f"{Path(given.out) / 'contamination.png'}. {NOTICE}")


def benchmark(argv: list[str]) -> None:
    """compare methods, with intervals and cost: loligo benchmark --methods a,b --datasets m.csv --out DIR"""
    if argv[:1] == ["compare"]:
        parser = new_parser(benchmark, "loligo benchmark compare A B")
        for name in ("A", "B"):
            parser.add_argument(name.lower(), metavar=name, help="folder of a benchmark, or its benchmark.json")
        given = parse(parser, argv[1:])
        from loligo import benchmark as benchmarks

        print(benchmarks.table_text(benchmarks.compare(given.a, given.b)), NOTICE, sep="\n")
        return
    parser = new_parser(benchmark, "loligo benchmark --methods M --datasets D --out DIR [options] | compare A B")
    parser.add_argument("--config", help="YAML file with any of these options")
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
    given = parse(parser, with_file(parser, argv))
    check_methods([name for words in given.methods for name in words.split(",") if name], given.preset, given.variants)
    check_settings(given.set)
    from loligo import benchmark as benchmarks

    found = benchmarks.run(benchmarks.parse(**vars(given)), lambda line: print(line, flush=True))
    print(f"{found.page}. {NOTICE}")
    print(f"{found.failed} of {found.cells} cells failed" + (f"; reasons: {found.page}" if found.failed else ""))
    if found.failed == found.cells:
        raise SystemExit(1)


def experiment(argv: list[str]) -> None:
    """index, train, score, evaluate and report in one: loligo experiment DATASET METHOD --data DIR --out RUN"""
    from loligo import experiment as experiments
    from loligo import methods
    from loligo.data import sources
    from loligo.runs.scores import scorings

    dataset = leading(experiment, argv, "DATASET", sorted(experiments.DATASETS))
    name = leading(experiment, argv[1:], "METHOD", methods.names(), "second")
    parser = new_parser(experiment, f"loligo experiment {dataset} {name} --data DIR --out RUN [options]")
    parser.add_argument("--data", required=True, help="folder that holds the data set")
    parser.add_argument("--out", required=True, help="run folder to write; a training cut off there resumes")
    parser.add_argument("--results", help="table (CSV) to which a row a protocol is appended")
    parser.add_function_arguments(experiments.DATASETS[dataset], "index", skip={"root"})
    given = parse_training(parser, name, argv[2:])
    check_paths([given.data] if dataset in sources.SOURCES else [])
    _tell_what_begins(name, given.preset)
    settings = {"index": part(given, "index"), "results": given.results, **training_arguments(given)}
    found = experiments.run(dataset, name, given.data, given.out, **settings)
    print(metrics_table(found))
    scored = scorings(Path(given.out))[-1]
    print(scored.report)
    _tell_rejected(Path(given.out), scored.path)


def synthesize(argv: list[str]) -> None:
    """insert anomalies with known masks in normal images, to test on: loligo synthesize PATH... -o DIR"""
    parser = new_parser(synthesize, "loligo synthesize PATH... -o DIR [options]")
    parser.epilog = (
        "Synthetic anomalies: cutpaste, cutpaste_scar, perlin, nsa, fpi, pii, anatpaste. Simulated findings of chest "
        "radiographs: consolidation, ground_glass, edema, interstitial, effusion, pneumothorax, nodule, "
        "atelectasis, cardiomegaly, device; of any image: opacity, lucency, missing, misplaced, mirrored, foreign, "
        "deformed, texture. For research use: no simulated finding is a disease."
    )
    parser.add_argument("paths", metavar="PATH", nargs="+", help="manifest, folder or files of normal images")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for images, masks and manifest.csv")
    parser.add_argument("--kinds", nargs="+", help="each in a copy of each image (default: the synthetic anomalies)")
    parser.add_argument("--split", default="test", help="of the manifest, whose normal images are taken")
    parser.add_argument("--seed", type=int, default=0, help="of the anomalies")
    given = parse(parser, argv)
    check_paths(given.paths)
    from loligo.data import inputs, synthetic, synthetic_set

    rows, kinds = inputs.resolve(data_of(given.paths), purpose="score").accepted(), given.kinds or list(synthetic.KINDS)
    frame = synthetic_set.write(given.out, rows, kinds=kinds, split=given.split, seed=given.seed)
    count = int(frame["label"].sum())
    print(f"{given.out / 'manifest.csv'}: {len(frame) - count} normal images, {count} abnormal")


def pacs(argv: list[str]) -> None:
    """link a run to a PACS: loligo pacs serve RUN --listen LOLIGO@127.0.0.1:11112 --target URL | status | retry"""
    from loligo.pacs.config import Config, check, need

    verb = leading(pacs, argv, "VERB", ["retry", "serve", "status"])
    use = {"retry": "retry ID | --all [options]", "serve": "serve RUN [options]", "status": "status [options]"}[verb]
    parser = new_parser(pacs, f"loligo pacs {use}")
    if verb == "serve":
        parser.add_argument("run", metavar="RUN", help="run folder made by loligo train")
        parser.add_argument("--config", help="YAML file with any of these options")
        parser.add_fields(Config, "", {})
        given = vars(parse(parser, with_file(parser, argv[1:])))
        run, config = given.pop("run"), Config(**{name: given[name] for name in given if name != "config"})
        check_paths([run])
        check(config)
        need(config)
        from loligo.pacs.serve import serve

        serve(run, config)
        return
    parser.add_fields(Config, "", {}, [field.name for field in fields(Config) if field.name not in ("spool", "queue")])
    if verb == "retry":
        parser.add_argument("study", metavar="ID", nargs="?", type=int, help="number of a study among the dead")
        parser.add_argument("--all", action="store_true", help="all of them")
    given = vars(parse(parser, argv[1:]))
    study, every = given.pop("study", None), given.pop("all", False)
    config = Config(**given)
    need(config)
    from loligo.pacs import status

    if verb == "status":
        print(status.text(config))
    elif every == (study is not None):
        fail("loligo pacs retry needs the number of a study, or --all")
    else:
        print(f"{status.retry(config, study)} of the dead studies are in the queue again")


def demo(argv: list[str]) -> None:
    """train squid, ae and gaussian on synthetic digits, score them, write the report: loligo demo [--out runs/demo]"""
    from loligo import demo as demonstration

    parser = new_parser(demo, "loligo demo [options]")
    parser.add_function_arguments(demonstration.run)
    given = parse(parser, argv)
    _api()
    demonstration.run(**vars(given))


def cache(argv: list[str]) -> None:
    """say where decoded images are kept, which are patients' pixels, or remove them: loligo cache [clear]"""
    parser = new_parser(cache, "loligo cache [clear]")
    parser.add_argument("what", nargs="?", choices=["clear"], help="remove all of it; it is made again when needed")
    given = parse(parser, argv)
    from loligo.data import cache as images

    entries, held = images.size()
    print(f"{images.home()}: {entries} entries, {held:,} bytes of decoded images")
    if given.what:
        print(f"removed {images.clear():,} bytes")


def list_methods(argv: list[str]) -> None:
    """list the methods, how long each trains, and what it is good at"""
    from loligo import methods

    parse(new_parser(list_methods, "loligo methods"), argv)
    for row in [("method", "training", "needs", "good at"), *methods.table()]:
        print("{:20}  {:8}  {:9}  {}".format(*row))
    print(
        "\ntraining: of 1,133 radiographs on one CPU core, by the preset for radiographs where there is one\n"
        "features, diffusion: pip install '.[features,diffusion]' in a clone of loligo\n"
        "weakly supervised: beside normal images it must be given abnormal ones; no other method is\n"
        "loligo train METHOD --help: its idea, presets and options"
    )


def completion(argv: list[str]) -> None:
    """print a script that completes commands and options: loligo completion bash|zsh|fish"""
    script = COMPLETIONS[leading(completion, argv, "SHELL", sorted(COMPLETIONS))]
    parse(new_parser(completion, "loligo completion SHELL"), argv[1:])
    print(script)


BASH = """_loligo() {
  local known=$(${COMP_WORDS[0]} "${COMP_WORDS[@]:1:COMP_CWORD-1}" --complete 2>/dev/null)
  COMPREPLY=($(compgen -W "$known" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _loligo loligo"""
COMPLETIONS = {
    "bash": BASH,
    "zsh": f"autoload -U +X bashcompinit && bashcompinit\n{BASH}",
    "fish": "complete -c loligo -a '(set words (commandline -opc); $words --complete 2>/dev/null)'",
}
"""Scripts by shell: each asks loligo itself, by the last argument `COMPLETE`, what may come next."""


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "index": index,
    "train": train,
    "score": score,
    "recalibrate": recalibrate,
    "drift": drift,
    "export": export,
    "evaluate": evaluate,
    "report": report,
    "sheet": sheet,
    "deidentify": deidentify,
    "experiment": experiment,
    "benchmark": benchmark,
    "contaminate": contaminate,
    "synthesize": synthesize,
    "pacs": pacs,
    "demo": demo,
    "cache": cache,
    "methods": list_methods,
    "completion": completion,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a subcommand; what is wrong with input is said in one line, with exit status 2."""
    args = list(sys.argv[1:] if argv is None else argv)
    complete(args, COMMANDS)
    if args[:1] == ["help"]:
        args = [*args[1:], "--help"]
    if not args or args[0] in ("-h", "--help"):
        print(usage())
        return
    if args[0] in ("-V", "--version", "version"):
        print(f"loligo {__version__}")
        return
    if args[0] not in COMMANDS:
        fail(f"there is no command {args[0]!r}; {nearest(args[0], COMMANDS)}")
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[_AboveBars()])
    try:
        COMMANDS[args[0]](args[1:])
    except OSError as error:
        _raise_to_debug()
        fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except (ValueError, FloatingPointError, ImportError, MemoryError) as error:
        _raise_to_debug()
        fail(_without_torch(error) or str(error) or "there is not enough memory")
    except KeyboardInterrupt:
        fail(_interrupted(args))


class _AboveBars(logging.Handler):
    """Print messages on lines of their own, where a bar stands above it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        from loligo.progress import say  # here: most commands say nothing

        say(self.format(record))


def _without_torch(error: Exception) -> str:
    """Say what an installation without torch is for; empty where the error is another one."""
    if getattr(error, "name", None) != "torch":
        return ""
    return "torch is not installed: this installation scores exported models alone; for all else, pip install loligo"


def _raise_to_debug() -> None:
    if os.environ.get("LOLIGO_DEBUG"):
        raise


def _interrupted(args: list[str]) -> str:
    """Say what an interrupted command leaves."""
    if args[0] in ("train", "experiment"):
        out = Path(value_of("--out", args) or "")
        if (out / "model.safetensors").is_file() or (out / "checkpoint" / "last.safetensors").is_file():
            return f"interrupted; the same command resumes {out} where it stands"
        return "interrupted before anything was kept; the same command begins anew"
    if args[0] in ("benchmark", "contaminate", "demo"):
        return "interrupted; the same command keeps what is finished, and goes on"
    return f"{args[0]} interrupted; the same command begins anew"


def usage() -> str:
    """Return the help of the command itself."""
    lines = [f"{name:11} {(command.__doc__ or '').strip()}" for name, command in COMMANDS.items()]
    head = "loligo: unsupervised anomaly detection for radiology. Learn from normal images, score new ones.\n"
    return "\n".join([head, *lines, "", "loligo COMMAND --help shows its options. " + NOTICE])


def _api() -> Any:
    """Return the verbs, in a process made fast for them."""
    from loligo import accelerate, api

    accelerate()
    return api


def _tell_what_begins(method: str, preset: str | None) -> None:
    """Say at once, before anything slow, what is going to be trained and how long that may take."""
    from loligo.methods import METHODS, declared

    if os.environ.get("RANK", "0") != "0":
        return
    known, entry = declared.read(method).presets, METHODS.get(method)
    ours = next((name for name in ("radiograph", "ensemble", "report") if name in known), None)
    took = f": 1,133 radiographs took {entry.time} on one core" if entry and preset in (None, ours) else ""
    hint = f" with --preset {ours}, which is for radiographs" if ours and not preset else ""
    print(f"training {method}{took}{hint}", file=sys.stderr, flush=True)


def _tell_rejected(*folders: Path) -> None:
    for path in (folder / "rejected.csv" for folder in folders):
        with path.open(newline="", encoding="utf-8") as stream:
            if count := sum(1 for _ in csv.reader(stream)) - 1:
                print(f"{count} files could not be used; see {path} for the reasons", file=sys.stderr)
