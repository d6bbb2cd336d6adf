"""`momentkit features`: make feature files from films and sentences, verify them, compare two makings."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from momentkit.core.errors import FeatureError, MomentkitError, QueryError

if TYPE_CHECKING:
    from momentkit.features.base import FrameEncoder, SoundEncoder, TextEncoder

app = typer.Typer(help="Extract, verify and compare feature files.", no_args_is_help=True)
_ROWS = (".jsonl", ".jsonl.gz")


@app.command()
def extract(
    inputs: list[Path] = typer.Argument(
        ..., metavar="VIDEO...", help="Films; or annotations (.jsonl), whose sentences are encoded."
    ),
    directory: Path = typer.Option(..., "-o", "--output", help="Folder for one .npz a film or sentence."),
    encoder: str = typer.Option(
        ..., help="tiny, clip, siglip2, slowfast, clap, cnn14, minilm, glove, a hub id, or a directory."
    ),
    source: str | None = typer.Option(
        None, "--from", help="Directory, file or hub id of the encoder's weights; by default the hub's."
    ),
    revision: str = typer.Option("", help="Commit of the hub to use; by default the newest."),
    clip_length: float = typer.Option(2.0, help="Seconds a clip covers; tiny has its own."),
    dtype: str = typer.Option("float32", help="float32 or float16."),
    text_files: str = typer.Option(
        "qid{qid}", help="Names of the sentences' files: {qid} and {vid} are known."
    ),
    device: str = typer.Option("cpu", help="Torch device."),
    again: bool = typer.Option(False, "--again", help="Also encode films whose file is there already."),
    tolerate_cut: bool = typer.Option(False, help="Encode what is whole of cut films."),
) -> None:
    """Encode films, or the sentences of annotations, into feature files with their contract."""
    from momentkit.features.encoders import EncoderOptions, load_encoders

    text = [path.name.endswith(_ROWS) for path in inputs]
    if any(text) != all(text):
        raise FeatureError(
            "films and annotations cannot go into one folder: extract them one after the other"
        )
    if dtype not in ("float32", "float16"):
        raise FeatureError(f"features are stored as float32 or float16, not {dtype}")
    if not any(text):
        _require_distinct(inputs)
    options = EncoderOptions(source=source, revision=revision, clip_length_s=clip_length, device=device)
    found = load_encoders(encoder, options)
    if any(text):
        if found.text is None:
            raise FeatureError(f"the encoder {encoder} does not encode sentences; use clip, minilm or glove")
        _prepare(found.text, dtype, directory)
        _extract_sentences(inputs, found.text, directory, text_files)
    else:
        one = found.frames or found.sound
        if one is None:
            raise FeatureError(f"the encoder {encoder} does not encode films; use clip, slowfast or cnn14")
        _prepare(one, dtype, directory)
        _extract_films(inputs, one, directory, again, tolerate_cut)


def _require_distinct(films: list[Path]) -> None:
    names: dict[str, Path] = {}
    for film in films:
        if film.stem in names:
            raise FeatureError(
                f"{names[film.stem]} and {film} would both become {film.stem}.npz; rename one of them"
            )
        names[film.stem] = film


def _prepare(encoder: "FrameEncoder | SoundEncoder | TextEncoder", dtype: str, directory: Path) -> None:
    """Set the precision, and refuse a folder of other features before any work is done."""
    from momentkit.features.store import read_contract, require_stream

    encoder.contract = encoder.contract.model_copy(update={"dtype": dtype})
    kept = read_contract(directory)
    if kept is not None:
        require_stream(kept, encoder.contract, str(directory))


def _extract_films(
    films: list[Path],
    encoder: "FrameEncoder | SoundEncoder",
    directory: Path,
    again: bool,
    tolerate_cut: bool,
) -> None:
    from momentkit.features.folder import extract_film, film_file

    failed = 0
    for film in films:
        target = film_file(film, directory)
        if target.exists() and not again:
            print(f"{target}: there already")
            continue
        try:
            extract_film(film, encoder, directory, tolerate_cut=tolerate_cut)
        except MomentkitError as error:  # the other films are still worth encoding
            print(f"momentkit: {error}", file=sys.stderr)
            failed += 1
        else:
            print(f"{target}: written")
    if failed:
        raise FeatureError(f"{failed} of {len(films)} films were not encoded, see above")


def _extract_sentences(
    annotations: list[Path], encoder: "TextEncoder", directory: Path, pattern: str
) -> None:
    from momentkit.data.annotations import read_annotations
    from momentkit.features.folder import extract_sentences

    sentences: dict[str, str] = {}
    for path in annotations:
        for row in read_annotations(path, keep_outside=True):
            name = pattern.replace("{qid}", str(row.qid)).replace("{vid}", row.vid)
            if sentences.setdefault(name, row.text) != row.text:
                raise QueryError(
                    f"{path}:{row.line}: another sentence is called {name!r} too; name the files by what is "
                    "unique, or look words up without files (glove)"
                )
    unknown = extract_sentences(sentences, encoder, directory)
    print(f"{directory}: {len(sentences)} sentences written")
    if unknown:
        most = sorted(unknown, key=lambda word: -len(unknown[word]))[:8]
        print(f"  {len(unknown)} words unknown to the encoder, most often {', '.join(most)}")


@app.command("import")
def import_weights(
    weights: Path = typer.Argument(..., help="Published file: SLOWFAST_8x8_R50.pkl, Cnn14_mAP=0.431.pth."),
    encoder: str = typer.Option(..., help="slowfast or cnn14."),
    output: Path = typer.Option(..., "-o", "--output", help="The .safetensors file to write."),
) -> None:
    """Turn an encoder's published weights into safetensors, without running anything they hold."""
    from momentkit.convert.encoders import import_encoder

    card = import_encoder(weights, encoder, output)
    print(f"{output}: {card.model}, {card.notes}")


@app.command()
def verify(
    directory: Path = typer.Argument(..., metavar="DIR", help="A folder of feature files."),
) -> None:
    """Read every feature file and compare it with the folder's contract; exit 2 where one is wrong."""
    from momentkit.features.folder import verify_folder
    from momentkit.features.store import read_contract

    report = verify_folder(directory)
    contract = read_contract(directory)
    for fault in report.faults:
        print(fault)
    if contract is not None:
        print(
            f"{contract.encoder} ({contract.revision or 'no revision'}), {contract.layer}, "
            f"{contract.dim} channels"
        )
    zeros = f", {report.zero_rows} of them zero" if report.zero_rows else ""
    print(f"{directory}: {report.files} files, {report.rows} rows{zeros}, {len(report.faults)} faults")
    if report.faults:
        raise typer.Exit(2)


@app.command()
def compare(
    a: Path = typer.Argument(..., help="A feature file, or a folder of them."),
    b: Path = typer.Argument(..., help="The same by another making."),
    worst: int = typer.Option(5, min=0, help="Clips that are named."),
    at_least: float | None = typer.Option(None, help="Exit 2 where a clip's cosine is lower."),
) -> None:
    """Cosine of each clip of A with the same clip of B: summary and worst clips."""
    import numpy as np

    from momentkit.features.folder import compare_features

    result = compare_features(a, b)
    for name, (rows_a, rows_b) in result.lost.items():
        print(
            f"note: {name} has {rows_a} rows in A and {rows_b} in B; "
            f"the first {min(rows_a, rows_b)} are compared"
        )
    for side, missing in (("A", result.only_a), ("B", result.only_b)):
        if missing:
            print(f"note: only in {side}: {len(missing)}, such as {missing[0]}")
    cosine = result.all
    low, middle = np.quantile(cosine, (0.05, 0.5))
    print(f"{len(result.names)} films, {cosine.size} clips")
    print(
        f"cosine: mean {cosine.mean():.6f}, median {middle:.6f}, 5 % below {low:.6f}, "
        f"least {cosine.min():.6f}"
    )
    for value, name, clip in result.worst(worst):
        print(f"  {value:.6f}  {name}, clip {clip}")
    if at_least is not None and not cosine.min() >= at_least:
        raise FeatureError(f"the least cosine is {cosine.min():.6f}, at least {at_least:g} is wanted")
