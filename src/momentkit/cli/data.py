"""`momentkit data`: check annotation files, and say what a data set holds."""

from pathlib import Path

import typer

from momentkit.cli.synthesize import synthesize

app = typer.Typer(help="Check and describe data sets.", no_args_is_help=True)
app.command()(synthesize)


@app.command()
def validate(
    files: list[Path] = typer.Argument(help="Annotation files, .jsonl or .jsonl.gz."),
    clip_windows: bool = typer.Option(False, help="Cut windows to their video instead of refusing them."),
    drop_bad_windows: bool = typer.Option(False, help="Leave out windows that do not end after their start."),
    show: int = typer.Option(3, min=0, help="Faults of each kind that are written out."),
) -> None:
    """Name every fault of annotation files with its line; exit 2 where there is one."""
    from momentkit.data.annotations import validate_annotations
    from momentkit.data.row import WindowRules

    rules = WindowRules(clip_windows=clip_windows, drop_bad_windows=drop_bad_windows)
    faults = 0
    for file in files:
        report = validate_annotations(file, rules)
        faults += len(report.problems) + (not report.rows)
        verdict = (
            f"{len(report.problems)} faults" if report.problems else "no fault" if report.rows else "no row"
        )
        print(f"{file}: {report.rows} rows, {verdict}")
        for sentence in report.mended():
            print(f"  note: {sentence.removeprefix(f'{file}: ')}")
        for kind, count in report.counts.items():
            found = [problem for problem in report.problems if problem.kind == kind]
            lines = ", ".join(str(problem.line) for problem in found[:20]) + (", ..." if count > 20 else "")
            print(f"  {kind}: {count} (line {lines})")
            for problem in found[:show]:
                print(f"    {problem.message}")
    if faults:
        raise typer.Exit(2)


@app.command("import")
def import_rows(
    files: list[Path] = typer.Argument(help="Tables (.csv, .tsv), subtitles (.srt, .vtt) or .jsonl."),
    output: Path = typer.Option(..., "-o", "--output", help="Annotation file, .jsonl."),
    videos: Path | None = typer.Option(None, help="Folder of the films, from which durations are measured."),
    video: str = typer.Option("", help="Video of all rows that name none."),
    duration: float | None = typer.Option(None, help="Seconds of each video of unknown length."),
    clip_windows: bool = typer.Option(False, help="Cut windows to their video instead of refusing them."),
    drop_bad_windows: bool = typer.Option(False, help="Leave out windows that do not end after their start."),
) -> None:
    """Make an annotation file of own data: a video, a query and its windows are all that is needed."""
    from functools import cache

    from momentkit.data.annotations import write_annotations
    from momentkit.data.own import read_own
    from momentkit.data.row import WindowRules

    @cache
    def duration_of(vid: str) -> float | None:
        return duration if videos is None else _probed_s(videos, vid)

    rules = WindowRules(clip_windows=clip_windows, drop_bad_windows=drop_bad_windows)
    reports = read_own(files, output.stem, duration_of, video=video, rules=rules)
    rows = [query for report in reports for query in report.queries]
    write_annotations(output, rows)
    print(f"{output}: {len(rows)} rows, {len({query.vid for query in rows})} videos")
    for sentence in (sentence for report in reports for sentence in report.mended()):
        print(f"  note: {sentence}")


def _probed_s(folder: Path, vid: str) -> float:
    from momentkit.video.probe import probe

    return probe(_film_of(folder, vid)).duration_s


def _film_of(folder: Path, vid: str) -> Path:
    from momentkit.core.errors import DataError
    from momentkit.data.own import FILM_ENDINGS

    for ending in FILM_ENDINGS:
        for path in (folder / f"{vid}{ending}", folder / f"{vid}{ending.upper()}"):
            if path.is_file():
                return path
    raise DataError(f"no film of {vid!r} in {folder} ({', '.join(FILM_ENDINGS)})")


@app.command()
def leakage(
    train: Path = typer.Argument(help="Rows that are learnt from."),
    val: Path = typer.Argument(help="Rows that are measured on."),
    show: int = typer.Option(5, min=0, help="Shared videos and sentences that are written out."),
) -> None:
    """Name videos and sentences that two annotation files share; exit 2 where a video is shared."""
    from momentkit.data.annotations import read_annotations
    from momentkit.data.leakage import leakage as compare

    first, second = (
        read_annotations(file, keep_outside=True, drop_bad_windows=True) for file in (train, val)
    )
    found = compare(first, second)
    for what, shared in (
        ("videos", found.videos),
        ("films that different parts were cut from", found.sources),
        ("sentences", found.sentences),
    ):
        rows = sum(count for _, count in shared.values())
        print(f"{len(shared)} {what} in both, {rows} of {len(second)} rows of {val.name}")
        often = sorted(shared.items(), key=lambda item: -sum(item[1]))[:show]
        for name, (here, there) in often:
            print(f"  {name!r}: {here} and {there} rows")
    print(f"{found.pairs} rows of {val.name} ask the same of the same video")
    if found.videos or found.sources:
        raise typer.Exit(2)


@app.command()
def encode(
    train: Path = typer.Argument(help="Rows that are learnt from, .jsonl."),
    val: Path = typer.Argument(help="Rows that are measured on."),
    videos: Path = typer.Option(..., help="Folder of the films."),
    output: Path = typer.Option(..., "-o", "--output", help="Folder that receives features and data.toml."),
    encoder: str = typer.Option("clip", help="tiny (bundled), clip, or the directory of a CLIP checkpoint."),
    clip_length: float = typer.Option(1.0, help="Seconds a clip covers; tiny has its own."),
) -> None:
    """Encode the films and sentences of two annotation files; write the [data] section that reads them."""
    import sys

    from rich.console import Console
    from rich.progress import track

    from momentkit.core.files import atomic_write
    from momentkit.data.annotations import read_annotations
    from momentkit.data.info import data_section
    from momentkit.features.encoders import encoder_by_name
    from momentkit.features.folder import extract_film, extract_sentences

    rows = [query for file in (train, val) for query in read_annotations(file)]
    frames, text = encoder_by_name(encoder, clip_length_s=clip_length)
    films = {vid: _film_of(videos, vid) for vid in dict.fromkeys(query.vid for query in rows)}
    quiet = not sys.stderr.isatty()
    for film in track(list(films.values()), "films", console=Console(stderr=True), disable=quiet):
        extract_film(film, frames, output / "video")
    unknown = extract_sentences({f"qid{query.qid}": query.text for query in rows}, text, output / "text")
    for word, places in unknown.items():
        print(f"note: {text.contract.encoder} does not know {word!r} ({len(places)} sentences)")
    section = data_section(output, train, val, frames.contract, text.contract, frames.clip_length_s)
    path = atomic_write(output / "data.toml", section)
    print(f"{output}: {len(films)} films and {len(rows)} sentences encoded; {path} reads them")


@app.command()
def split(
    train: Path = typer.Argument(help="Charades-STA's training rows, .jsonl or .jsonl.gz."),
    test: Path = typer.Argument(help="Its test rows."),
    rule: str = typer.Option(
        ..., help="len: training moments mostly under 10 s, test moments over; mom: before and after 15 s."
    ),
    directory: Path = typer.Option(..., "-o", "--output", help="Folder that receives both files."),
    released: bool = typer.Option(
        False, help="Number the rows as the released files do, where numbers repeat; else each keeps its own."
    ),
) -> None:
    """Make an anti-bias split (Charades-STA-Len, -Mom): test moments are not like training moments."""
    from momentkit.data.annotations import read_annotations, write_annotations
    from momentkit.data.splits import anti_bias

    for part, source in (("train", train), ("test", test)):
        rows = anti_bias(read_annotations(source), rule, part, released=released)
        target = write_annotations(directory / f"{part}_{rule}_80.jsonl", rows)
        print(f"{target}: {len(rows)} rows, {len({row.qid for row in rows})} qids")


@app.command()
def info(
    source: str = typer.Argument(
        help="A folder of annotations and features, a configuration file, or a published data set."
    ),
    directory: Path | None = typer.Argument(None, help="Where that published data set lies."),
) -> None:
    """Counts, durations, words, feature shapes of a data set; of a published one, what is missing.

    Exit 2 where an annotation file of a published data set is missing or has other counts than it should.
    """
    if directory is not None:
        _info_of_published(source, directory)
    elif Path(source).is_dir():
        _info_of_folder(Path(source))
    else:
        _info_of_configuration(Path(source))


def _info_of_published(name: str, root: Path) -> None:
    from momentkit.data.catalog import find_published
    from momentkit.data.compare_published import covered, hold_against

    published = find_published(name)
    findings = hold_against(published, root)
    there = {found.part.split for found in findings if found.path}
    print(f"{published.title} in {root}")
    for found in findings:
        if found.path is None and found.part.split in there:
            continue  # another form of the same rows is there
        if found.path is None:
            print(f"  {found.part.name}: missing; wanted is {' or '.join(found.part.files)} (.gz)")
            continue
        verdict = "; ".join(found.differs) or f"{found.part.rows} rows, as expected"
        print(f"  {found.part.name}: {found.path.relative_to(root)}: {verdict}")
        for note in found.notes:
            print(f"    note: {note}")
    for cover in (covers := covered(findings, root)):
        counts = ", ".join(f"{split} {seen} of {wanted}" for split, (seen, wanted) in cover.of.items())
        print(f"  features {cover.folder.relative_to(root)}, {cover.pattern}: {counts}")
        if cover.lacking:
            print(f"    lacks {', '.join(cover.lacking)}{', ...' if len(cover.lacking) == 5 else ''}")
    if not covers:
        print(f"  no features of these rows; `momentkit data where {name}` says where they come from")
    for known in published.known:
        print(f"  known: {known}")
    if any(found.differs or found.part.split not in there for found in findings):
        raise typer.Exit(2)


@app.command()
def where(
    name: str = typer.Argument("", help="A published data set; without it, all are listed."),
) -> None:
    """Say where the annotations and features of a published data set come from, and under which licence."""
    from momentkit.data.catalog import PUBLISHED, find_published

    if not name:
        for key, published in PUBLISHED.items():
            print(f"{key:<13} {published.title}")
        return
    published = find_published(name)
    print(published.title)
    for title, lines in (("annotations", published.annotations), ("features", published.features)):
        for line in lines:
            print(f"  {title}: {line}")
    print(f"  licence: {published.licence}")
    files = (f"{part.files[0]} ({part.rows} rows)" for part in published.parts)
    print(f"  files: {', '.join(files)}")
    print(f"Check a copy with `momentkit data info {name} DIR`.")


def _info_of_folder(root: Path) -> None:
    from momentkit.data.annotations import validate_annotations
    from momentkit.data.info import annotation_figures, feature_figures, look_into

    folder = look_into(root)
    for file in folder.annotations:
        report = validate_annotations(file)
        _table(str(file.relative_to(root)), annotation_figures(report.queries))
        if report.problems:
            print(f"  {len(report.problems)} faults: see `momentkit data validate {file}`")
    for features in folder.features:
        _table(f"{features.relative_to(root)}/", feature_figures(features))


def _info_of_configuration(path: Path) -> None:
    from momentkit.core.config import build, read_toml
    from momentkit.core.errors import ConfigError
    from momentkit.data.dataset import GroundingDataset
    from momentkit.data.info import annotation_figures
    from momentkit.data.options import DataConfig

    values = read_toml(path)
    if not isinstance(values.get("data"), dict):
        raise ConfigError(f"{path} has no section [data]; a configuration of a training run is wanted")
    config = build(DataConfig, values["data"], f"{path} [data]")
    for split in ("train", "val"):
        data = GroundingDataset(config, split)
        figures = annotation_figures(data.queries)
        lengths = data.lengths_N
        figures["clips of a row"] = f"{lengths.min()} to {lengths.max()}, mean {lengths.mean():.4g}"
        figures["video input"] = (
            f"{config.contract.video_dim} channels, clip length {config.clip_length_s:g} s"
        )
        figures["text input"] = f"{config.text.dim} channels"
        _table(split, figures)  # what was cut is logged by the data set itself


def _table(title: str, figures: dict[str, str]) -> None:
    print(title)
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"  {name:<{width}}  {value}")
