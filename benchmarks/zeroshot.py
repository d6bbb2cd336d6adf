"""`zeroshot` on the synthetic world: how far similarity alone leads, beside the location prior.

    python benchmarks/zeroshot.py --work runs/zeroshot -o zeroshot.json

The bundled encoders share no space: frames are probabilities of concepts (a red actor jumps), sentences are
states of words. This makes them a dual encoder, in the way of CLIP but with one linear map: ridge regression
from the mean state of a sentence's words to what the clips it is true of have more than the others of their
film, fitted on the training films. Moments enter only as "these clips belong to this sentence"; `zeroshot`
itself learns nothing. It is then asked about films of which the map saw none.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from momentkit.core.contract import StreamContract
from momentkit.core.types import Query
from momentkit.data.annotations import read_annotations
from momentkit.data.synthetic.writing import SetOptions, synthesize
from momentkit.features.store import write_features
from momentkit.features.tiny import TinyFrameEncoder, TinyTextEncoder
from momentkit.train.compare import compare

RIDGE = 10.0
SHOWN = ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU", "mAP")


def main() -> None:
    """Make the films and the shared space, ask, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/zeroshot"))
    parser.add_argument("--films", type=int, default=200, help="training films, for the map and the prior")
    parser.add_argument("--test-films", type=int, default=100)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    films = (("train", options.films), ("val", options.test_films))
    frames, text = TinyFrameEncoder.bundled(), TinyTextEncoder.bundled()
    # Films of the seed that nothing bundled was trained on.
    synthesize(options.work, SetOptions(films=films, seed=1), frame_encoder=frames, text_encoder=text)
    config = share_space(options.work, frames.contract, text)
    found = compare("zeroshot", config)
    for who, figures in found.figures.items():
        print(f"{who:<24}", "  ".join(f"{name} {figures[f'MR-full-{name}']:5.1f}" for name in SHOWN))
    if options.output:
        options.output.write_text(json.dumps(found.to_json(), indent=1) + "\n")


def share_space(root: Path, frames: StreamContract, text: TinyTextEncoder) -> Path:
    """Write each sentence as one vector in the space of the frames, and a configuration that reads them."""
    train = read_annotations(root / "annotations" / "train.jsonl")
    pairs = [(query, _contrast(root, query)) for query in train]
    pairs = [(query, contrast_C) for query, contrast_C in pairs if contrast_C is not None]
    map_FC = _ridge(_sentences(text, [query for query, _ in pairs]), np.stack([c for _, c in pairs]))
    val = read_annotations(root / "annotations" / "val.jsonl")
    contract = frames.model_copy(
        update={"layer": "linear map of momentkit/tiny-text", "fps": 0.0, "crop": ""}
    )
    for query, row_F in zip(val, _sentences(text, val), strict=True):
        path = root / "features" / "shared" / f"qid{query.qid}"
        write_features(path, (row_F @ map_FC)[None], contract, "last_hidden_state")
    lines = (
        (root / "data.toml").read_text().partition("[data.text]")[0].replace("[data]", "[data]\ntef = false")
    )
    stream = "".join(f"{name} = {json.dumps(value)}\n" for name, value in contract.model_dump().items())
    config = root / "shared.toml"
    config.write_text(f'{lines}[data.text]\nfolder = "features/shared"\n{stream}')
    return config


def _sentences(text: TinyTextEncoder, queries: list[Query]) -> NDArray[np.float32]:
    """Mean word state of each sentence and a constant, (N, F)."""
    states = text.encode_text([query.text for query in queries])
    return np.stack([np.append(each.words_LE.mean(0), 1) for each in states]).astype(np.float32)


def _contrast(root: Path, query: Query) -> NDArray[np.float32] | None:
    """Mean feature of the clips inside the moments minus that of the others, (C,); None without others."""
    with np.load(root / "features" / "video" / f"{query.vid}.npz") as stored:
        rows_TC = stored["features"].astype(np.float32)
    rows_TC /= np.linalg.norm(rows_TC, axis=1, keepdims=True) + 1e-5
    inside_T = np.zeros(len(rows_TC), bool)
    for start_s, end_s in query.windows_s or ():
        inside_T[int(start_s) : int(np.ceil(end_s))] = True
    if inside_T.all() or not inside_T.any():
        return None
    return rows_TC[inside_T].mean(0) - rows_TC[~inside_T].mean(0)


def _ridge(x_NF: NDArray[np.float32], y_NC: NDArray[np.float32]) -> NDArray[np.float32]:
    gram_FF = x_NF.T @ x_NF + RIDGE * np.eye(x_NF.shape[1], dtype=np.float32)
    return np.linalg.solve(gram_FF, x_NF.T @ y_NC)


if __name__ == "__main__":
    main()
