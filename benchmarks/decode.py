"""What reading frames at asked times costs, beside decoding every frame and converting it to RGB.

    python benchmarks/decode.py --minutes 1 --gop 12 250 -o benchmarks/decode.json

The films are rendered here: H.264 of 1280 x 720 at 25 frames a second, a panning picture with noise; longer
ones repeat the first minute's packets. Every measurement has a process of its own and decodes in it, without
the sandbox. Processor seconds count all its threads. "1/s" and "0.5/s" are frames a second, probing included;
"in order" decodes every frame up to the last one asked for, as the reader does where nothing may be left out.
With --overlap: "encode", on the shortest film, reads one frame a second for CLIP ViT-B/32 (random weights),
which runs while the next frames are decoded: its gain is (reading alone + encoding alone) / both, in wall
time, so it needs free cores.
"""

import argparse
import atexit
import json
import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

HEIGHT, WIDTH, RATE = 720, 1280, 25
MINUTE = 60 * RATE
WAYS = ("all", "1/s", "0.5/s", "1/s in order")
OVERLAP = ("model", "encode")


def main() -> None:
    """Measure every film in every way, print a table, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", nargs="+", type=int, default=[1, 10])
    parser.add_argument("--gop", nargs="+", type=int, default=[12, 250])
    parser.add_argument("--overlap", action="store_true", help="also decode while CLIP encodes")
    parser.add_argument("--threads", type=int, default=1, help="of every decoder")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        way, film = options.one
        report_at_exit()
        measure(way, film, options.threads)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for gop in options.gop:
            minute = Path(folder) / f"{gop}.mp4"
            render(minute, gop)
            for minutes in options.minutes:
                film = Path(folder) / f"{gop}_{minutes}.mp4"
                repeat(minute, film, minutes)
                ways = WAYS + OVERLAP * (options.overlap and minutes == min(options.minutes))
                rows += measured(film, ways, {"minutes": minutes, "gop": gop}, options.threads)
                film.unlink()
    if options.output:
        options.output.write_text(json.dumps(rows, indent=2) + "\n")


def measured(film: Path, ways: tuple[str, ...], about: dict[str, int], threads: int) -> list[dict[str, Any]]:
    """Rows of one film, printed as they come."""
    rows: list[dict[str, Any]] = []
    for way in ways:
        command = [sys.executable, __file__, "--threads", str(threads), "--one", way, str(film)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seen = json.loads(done.stdout.splitlines()[-1])
        rows.append({**about, "way": way, **seen})
        every = rows[0]
        line = (
            f"{about['minutes']:>3} min  gop {about['gop']:>3}  {way:>12}  {seen['cpu_s']:7.1f} s processor"
        )
        line += f"  {seen['wall_s']:7.1f} s  {seen['peak_mb']:5.0f} MB"
        if way in WAYS[1:]:
            rows[-1]["times_faster"] = round(every["cpu_s"] / seen["cpu_s"], 2)
            line += f"  {rows[-1]['times_faster']} times faster"
        if way == "encode":
            rows[-1]["gain"] = round((rows[1]["wall_s"] + rows[-2]["wall_s"]) / seen["wall_s"], 2)
            line += f"  gain of overlapping {rows[-1]['gain']}"
        print(line, flush=True)
    return rows


def measure(way: str, film: str, threads: int) -> None:
    """Do the work of one way; what it took is reported when the process ends."""
    if way == "all":
        decode_all(film, threads)
    elif way in WAYS:
        rate, _, order = way.partition("/s")
        read(film, 1 / Fraction(rate), threads, in_order=bool(order))
    else:
        overlap(way, film, threads)


def decode_all(film: str, threads: int) -> None:
    """Every frame as an RGB array, as a loader without asked times does it."""
    import av

    with av.open(film) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.thread_type = threads, "AUTO"
        start()
        for frame in container.decode(stream):
            frame.to_ndarray(format="rgb24")
    stop()


def read(film: str, step_s: Fraction, threads: int, *, in_order: bool) -> None:
    """Our frames at asked times."""
    from momentkit.video import skip
    from momentkit.video.limits import VideoLimits
    from momentkit.video.probe import probe
    from momentkit.video.reader import open_video

    if in_order:
        skip.syntax_of = lambda container, stream: None
    start()
    limits = VideoLimits(threads=threads, sandbox=False)
    times_s = np.arange(0, probe(film, limits).last_frame_s, float(step_s))
    with open_video(film, limits) as reader:
        frames = sum(1 for _ in reader.frames_at(times_s))
    stop()
    assert frames == len(times_s)


def overlap(way: str, film: str, threads: int) -> None:
    """The encoder alone, on black frames, or both as `encode_video` does it."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    from momentkit.features.clip import ClipFrameEncoder
    from momentkit.features.extract import clip_count, encode_video
    from momentkit.features.pictures import Preprocess
    from momentkit.video.limits import VideoLimits
    from momentkit.video.probe import probe

    torch.set_num_threads(1)
    preprocess = Preprocess(shorter_side=224, crop=224)
    encoder = ClipFrameEncoder(CLIPModel(CLIPConfig()).eval(), preprocess, "random", "", 1.0)
    limits = VideoLimits(threads=threads, sandbox=False)
    start()
    if way == "encode":
        encode_video(film, encoder, limits)
    else:
        clips = clip_count(probe(film, limits).duration_s, 1.0)
        for _ in range(clips):
            encoder.encode_frames([np.zeros((HEIGHT, WIDTH, 3), np.uint8)])
    stop()


_clock: dict[str, float] = {}


def start() -> None:
    """From here the work counts; imports do not."""
    _clock["start"] = time.perf_counter()
    _clock["before"] = time.process_time()


def stop() -> None:
    """The work is done."""
    _clock["wall_s"] = time.perf_counter() - _clock["start"]
    _clock["own_s"] = time.process_time() - _clock["before"]


def report_at_exit() -> None:
    """Print what the process took; registered first, so it runs last, when the decoding process has ended."""

    def report() -> None:
        child = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Not ru_maxrss: that starts at the peak of the process that renders.
        status = Path("/proc/self/status").read_text()
        seen = {
            "cpu_s": round(_clock["own_s"] + child.ru_utime + child.ru_stime, 2),
            "wall_s": round(_clock["wall_s"], 2),
            "peak_mb": round(int(status.split("VmHWM:")[1].split()[0]) / 1024, 1),
        }
        print(json.dumps(seen))

    atexit.register(report)


def render(path: Path, gop: int) -> None:
    """One minute: a window that pans over a larger picture, with noise."""
    import av

    rng = np.random.default_rng(0)
    coarse = rng.integers(16, 235, (HEIGHT // 8, 2 * WIDTH // 8, 3), dtype=np.uint8)
    picture = coarse.repeat(8, 0).repeat(8, 1)
    noise = rng.integers(0, 20, (7, HEIGHT, WIDTH, 1), dtype=np.uint8)  # of a camera: never predicted
    settings = {"preset": "veryfast", "crf": "23", "g": str(gop), "keyint_min": str(gop), "sc_threshold": "0"}
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=RATE, options=settings)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for number in range(MINUTE):
            left = number * 3 % WIDTH
            shown = picture[:, left : left + WIDTH] + noise[number % 7]
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def repeat(minute: Path, path: Path, times: int) -> None:
    """A film of so many minutes from the packets of one."""
    import av

    with av.open(str(path), "w") as output:
        target = None
        for number in range(times):
            with av.open(str(minute)) as source:
                stream = source.streams.video[0]
                target = target or output.add_stream_from_template(stream)
                shift = int(number * 60 / stream.time_base)
                for packet in source.demux(stream):
                    if packet.dts is not None:
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = target
                        output.mux(packet)


if __name__ == "__main__":
    main()
