"""What a question costs as films get longer: peak memory and seconds, each film in a process of its own.

    python benchmarks/length.py --minutes 10 60 180 --model zeroshot flashvtg -o length.json

The features are drawn at random, as wide as the model takes them, and the encoders are stand-ins: what is
measured is everything from features to merged moments. `--pixels` instead renders a small film of that
length, encodes it with the bundled encoders and asks the bundled weights, so that decoding is in it too.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

SENTENCE = "a red ball falls"
CLIP_S = 1.0


def main() -> None:
    """Measure every film, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", nargs="+", type=int, default=[10, 60, 180])
    parser.add_argument("--model", nargs="+", default=["zeroshot", "flashvtg"])
    parser.add_argument("--pixels", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, minutes = options.one.split(":")
        print(json.dumps(measure_pixels(int(minutes)) if options.pixels else measure(name, int(minutes))))
        return
    rows = []
    for name in ["pixels"] if options.pixels else options.model:
        for minutes in options.minutes:
            command = [
                sys.executable,
                __file__,
                "--one",
                f"{name}:{minutes}",
                *(["--pixels"] * options.pixels),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row = {"model": name, "minutes": minutes, **json.loads(done.stdout.splitlines()[-1])}
            rows.append(row)
            first = next(one for one in rows if one["model"] == name)
            memory = f"{row['peak_mb']:7.0f} MB ({row['peak_mb'] / first['peak_mb']:.2f}x)"
            seconds = (
                f"{row['seconds']:8.2f} s  {1000 * row['cpu_s'] / minutes:7.2f} ms of processor a minute"
            )
            print(f"{name:>10} {minutes:>4} min  {memory}  {seconds}", flush=True)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=2) + "\n")


def measure(name: str, minutes: int) -> dict[str, float]:
    """One question about random features."""
    import torch

    from momentkit.core.contract import FeatureContract, StreamContract
    from momentkit.core.types import TextFeatures, VideoFeatures
    from momentkit.core.weights import WeightsCard
    from momentkit.models.registry import create_model, is_trainable
    from momentkit.predict.decode import PostProcess
    from momentkit.predict.encoded import EncodedVideo
    from momentkit.predict.grounder import Grounder

    width, tef = 512, is_trainable(name)
    frames_contract = StreamContract(encoder="random", layer="x", dim=width)
    words_contract = StreamContract(encoder="random text", layer="x", dim=width)
    contract = FeatureContract(video=(frames_contract,), text=words_contract, clip_length_s=CLIP_S, tef=tef)
    rng = np.random.default_rng(0)

    class Words:
        contract = words_contract

        def encode_text(self, sentences: list[str]) -> list[TextFeatures]:
            return [TextFeatures(words_LE=rng.normal(size=(4, width)).astype(np.float32)) for _ in sentences]

    torch.manual_seed(0)
    model = create_model(name, video_dim=width + 2 * tef, text_dim=width).eval().requires_grad_(False)
    grounder = Grounder(
        name=name,
        card=WeightsCard(model=name),
        model=model,
        contract=contract,
        frames=(Words(),),  # not asked
        text=Words(),
        post=PostProcess(nms="normal"),
        device=torch.device("cpu"),
    )
    clips = minutes * 60
    rows_TD = rng.standard_normal((clips, width), dtype=np.float32)
    features = VideoFeatures(
        features_TD=rows_TD, clip_length_s=CLIP_S, duration_s=clips * CLIP_S, contract=contract
    )
    video = EncodedVideo(name="film", features=features)
    window = replace(features, features_TD=rows_TD[:150], duration_s=150 * CLIP_S)
    grounder.find(EncodedVideo(name="start", features=window), SENTENCE)  # first use is no matter of length
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    grounder.find(video, SENTENCE)
    return {
        "seconds": time.perf_counter() - start_s,
        "cpu_s": time.process_time() - start_cpu_s,
        "peak_mb": _peak_mb(),
        "clips": clips,
    }


def measure_pixels(minutes: int) -> dict[str, float]:
    """Encode a film of plain pictures with the bundled encoders and ask the bundled weights."""
    from momentkit.predict.grounder import load

    with tempfile.TemporaryDirectory() as folder:
        # Rendered by another process: what writing costs is not what reading costs.
        path = Path(folder) / "film.mp4"
        code = f"import length; length.render({str(path)!r}, {minutes})"
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True)
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        grounder = load("flashvtg")
        video = grounder.encode(path)
        grounder.find(video, SENTENCE)
        return {
            "seconds": time.perf_counter() - start_s,
            "cpu_s": time.process_time() - start_cpu_s,
            "peak_mb": _peak_mb(),
            "clips": len(video.features.features_TD),
        }


def render(path: str, minutes: int) -> None:
    """A film of 64 x 48 pixels at 5 frames a second whose colour drifts."""
    import av

    with av.open(path, "w") as output:
        video = output.add_stream("libx264", rate=5, options={"preset": "ultrafast", "g": "50"})
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        for number in range(minutes * 300):
            picture = np.full((48, 64, 3), (number % 200, number // 7 % 200, 90), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 5)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
