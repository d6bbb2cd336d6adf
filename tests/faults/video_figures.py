"""The figures of docs/reliability.md: each function measures one row, at the size it is asked for.

The tests ask for small sizes and hold the figures to their bounds; benchmarks/reliability.py asks for full
ones and prints them.
"""

import contextlib
import hashlib
import json
import os
import signal
import socket
import struct
import textwrap
import threading
import time
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from video_clips import FAST_X264, KINDS, claim_jpeg_size, read_number, write_film, write_kind, write_noisy
from video_mutants import SMALL_KINDS, mutants, small_films
from video_verdicts import numbers_until_error, reason_of, verdict

from momentkit.core.errors import VideoError
from momentkit.video import process, sandbox
from momentkit.video.limits import VideoLimits
from momentkit.video.probe import probe
from momentkit.video.reader import open_video

PERCENTS = (1, 10, 50, 75, 90, 99)
CUT_KINDS = (
    "index_first.mp4",
    "h264.mp4",
    "fragmented.mp4",
    "h264.mkv",
    "live.mkv",
    "h264.ts",
    "vp9.webm",
    "mpeg4.avi",
)


def shown_at(times, asked):
    """Index of the last frame whose time is not after the time asked for: the definition, frame by frame."""
    return max(index for index, time in enumerate(times) if time <= asked + 1e-6)


def the_worker():
    """The warm worker; one is started where there is none."""
    if not sandbox._idle:
        with sandbox._borrowed("warming up"):
            pass
    return sandbox._idle[-1]


def fresh_worker():
    """A worker that has read nothing yet; the warm ones are ended."""
    sandbox._end_all()
    return the_worker()


def peak_mb(worker):
    """The most memory the worker held since it started, in MB."""
    status = Path(f"/proc/{worker.process_id}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def wrong_frames(folder, count=60, backward=10, seed=1):
    """V1: frames asked for in order, and backwards with a pass each; boundaries, repeats, the last."""
    asked_frames = wrong = 0
    generator = np.random.default_rng(seed)
    for kind in KINDS:
        path, times = write_kind(folder, kind)
        edges = [0.0, 0.2, 0.2, 0.4, 1.0, 2.0, times[-1], times[-1] + 0.02]
        forward = np.sort([*generator.uniform(0, 2.6, count), *edges])
        with open_video(path) as reader:
            seen = [(at, frame) for at, (_, frame) in zip(forward, reader.frames_at(forward), strict=True)]
            for at in np.sort(generator.uniform(0, 2.4, backward))[::-1]:
                seen += [(at, frame) for _, frame in reader.frames_at([at])]
        asked_frames += len(seen)
        wrong += sum(read_number(frame) != shown_at(times, at) for at, frame in seen)
    return {"asked": asked_frames, "wrong": wrong}


def vfr_error_s(folder):
    """V2: 30 frames a second, then 2."""
    stamps = [Fraction(i, 30) for i in range(90)] + [3 + Fraction(i, 2) for i in range(8)]
    path = folder / "vfr.mp4"
    times = write_film(path, times=stamps, rate=30, options=FAST_X264)
    asked = np.linspace(0, 6.5, 200)
    with open_video(path) as reader:
        frames = list(reader.frames_at(asked))
    wanted = [shown_at(times, one) for one in asked]
    wrong = sum(read_number(frame) != index for (_, frame), index in zip(frames, wanted, strict=True))
    error_s = max(abs(at - times[i]) for (at, _), i in zip(frames, wanted, strict=True))
    return {"largest error s": round(error_s, 9), "wrong": wrong}


def offset_error_s(folder):
    """V3: first stamps of 0.08 s, an hour, and before zero, which an edit list hides: 10 frames."""
    worst_s, wrong = 0.0, 0
    for first, name, hidden in [
        ("0.08", "a.ts", 0),
        ("3600", "b.mkv", 0),
        ("3600", "c.ts", 0),
        ("7.5", "d.mp4", 0),
        ("-0.4", "e.mp4", 10),
    ]:
        stamps = [Fraction(first) + Fraction(i, 25) for i in range(40)]
        times = write_film(folder / name, times=stamps, options=FAST_X264)[: 40 - hidden]
        with open_video(folder / name) as reader:
            frames = list(reader.frames_at(times))
        worst_s = max(worst_s, *(abs(at - wanted) for (at, _), wanted in zip(frames, times, strict=True)))
        numbers = [read_number(frame) for _, frame in frames]
        wrong += sum(seen != index for index, seen in enumerate(numbers, hidden))
    return {"largest error s": round(worst_s, 6), "wrong": wrong}


def duration_error_s(folder):
    """V5: headers without a duration, with a thousand times the duration, with 0, without a frame count."""
    lying, _ = write_kind(folder, "h264.mkv")
    content = lying.read_bytes()
    at = content.index(b"\x44\x89\x88") + 3  # eight bytes, in milliseconds
    (claimed,) = struct.unpack(">d", content[at : at + 8])
    paths = [write_kind(folder, kind)[0] for kind in ("live.mkv", "fragmented.mp4", "h264.ts")]
    for factor in (1000.0, 0.0, 1e12):
        path = folder / f"lying{factor:g}.mkv"
        path.write_bytes(content[:at] + struct.pack(">d", factor * claimed) + content[at + 8 :])
        paths.append(path)
    worker = fresh_worker()
    before_mb = peak_mb(worker)
    worst_s = max(abs(probe(path).duration_s - 2.4) for path in paths)
    return {"largest error s": round(worst_s, 6), "MB": round(peak_mb(worker) - before_mb, 1)}


def cut_frames(folder, percents=PERCENTS):
    """V6: frames lost against what lies whole before the cut, wrong frames, and reasons that are wrong."""
    lost = best_total = wrong = unsaid = 0
    for kind in CUT_KINDS:
        path, times = write_noisy(folder, kind)
        whole, packets = path.read_bytes(), _packets(path)
        index_last = kind == "h264.mp4"
        for percent in percents:
            length = len(whole) * percent // 100
            (folder / f"cut_{kind}").write_bytes(whole[:length])
            numbers, reason = numbers_until_error(folder / f"cut_{kind}", times)
            there = {pts for pts, end in packets if end <= length and not index_last}
            order = sorted(pts for pts, _ in packets)
            best = next((index for index, pts in enumerate(order) if pts not in there), len(order))
            best_total, lost = best_total + best, lost + max(best - len(numbers), 0)
            wrong += sum(seen != index for index, seen in enumerate(numbers))
            unsaid += reason != "truncated" and not (reason == "not_a_video" and percent == 1)
    return {"lost": lost, "of": best_total, "wrong": wrong, "cuts not said": unsaid}


def _packets(path):
    """(stamp, byte behind the last) of each packet."""
    with av.open(str(path)) as film:
        return [
            (packet.dts if packet.pts is None else packet.pts, (packet.pos or 0) + packet.size)
            for packet in film.demux(video=0)
            if packet.size
        ]


def hole_frames(
    folder, kinds=("index_first.mp4", "h264.mkv", "h264.ts", "vp9.webm", "hevc.mp4", "mpeg4.avi")
):
    """V7: 4 kB of zeros in the middle: wrong frames, and films of which it is not said."""
    wrong = unsaid = 0
    for kind in kinds:
        path, times = write_noisy(folder, kind)
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 4096] = bytes(len(content[middle : middle + 4096]))
        path.write_bytes(content)
        numbers, reason = numbers_until_error(path, times)
        wrong += sum(seen != index for index, seen in enumerate(numbers))
        unsaid += reason == ""
    return {"films": len(kinds), "wrong": wrong, "not said": unsaid}


def black_film(path, frames, width=3840, height=2160, group=20):
    """A long black film: one group of pictures, stored again and again."""
    part = path.with_suffix(".part.mkv")
    with av.open(str(part), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"preset": "ultrafast", "g": str(group)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        frame = av.VideoFrame(width, height, "yuv420p")
        for plane, level in zip(frame.planes, (16, 128, 128), strict=True):
            plane.update(bytes([level]) * plane.buffer_size)
        for index in range(group):
            frame.pts = index
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with av.open(str(part)) as film, av.open(str(path), "w") as output:
        source = film.streams.video[0]
        copy = output.add_stream_from_template(source)
        packets = [
            (bytes(packet), packet.pts, packet.dts, packet.is_keyframe)
            for packet in film.demux(source)
            if packet.size
        ]
        for again in range(frames // group):
            for content, pts, dts, key in packets:
                packet = av.Packet(content)
                packet.stream, packet.time_base = copy, source.time_base
                shift = again * group * 40  # milliseconds
                packet.pts, packet.dts, packet.is_keyframe = pts + shift, dts + shift, key
                output.mux(packet)
    return path


def deadline_overrun(folder, frames=100_000, deadline_s=2.0):
    """V11: a film of hours under a deadline of seconds and a limit of 1 GB; then another film."""
    path = black_film(folder / "black.mkv", frames)
    good, _ = write_kind(folder, "h264.mp4")
    worker = fresh_worker()
    before_mb, own_mb = peak_mb(worker), _resident_mb()
    limits = VideoLimits(deadline_s=deadline_s, max_memory_bytes=1024**3)
    start_s = time.monotonic()
    reason = ""
    try:
        with open_video(path, limits) as reader:
            for _ in reader.frames_at(np.arange(0, frames / 25, 0.2), (224, 224)):  # in every group
                pass
    except VideoError as error:
        reason = error.reason
    over_s = time.monotonic() - start_s - deadline_s
    worker_mb = round(peak_mb(worker) - before_mb) if worker.idle else "killed"
    with open_video(good) as reader:
        after = read_number(next(reader.frames_at([0.4]))[1])
    return {
        "reason": reason,
        "s over": round(over_s, 3),
        "worker MB": worker_mb,
        "own MB": round(_resident_mb() - own_mb, 1),
        "next film": after == 10,
    }


def _resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024**2


def mutant_figures(folder, count=1500, seed=7):
    """V15: damaged films through the worker, every other one read past the damage."""
    films, path = small_films(folder), folder / "mutant"
    worker = fresh_worker()
    start, slowest_s, reasons, falling = worker.process_id, 0.0, {}, 0
    for index, content in enumerate(mutants(films, count, seed)):
        path.write_bytes(content)
        start_s = time.monotonic()
        reason, times, _ = verdict(path, VideoLimits(deadline_s=20, threads=1), tolerate=index % 2 == 1)
        slowest_s = max(slowest_s, time.monotonic() - start_s)
        reasons[reason or "read"] = reasons.get(reason or "read", 0) + 1
        falling += times != sorted(times)
    return {
        "mutants": count,
        "crashes": reasons.get("decoder_died", 0),
        "same worker": the_worker().process_id == start,
        "times that fall": falling,
        "slowest s": round(slowest_s, 2),
        "peak MB": round(peak_mb(the_worker())),
        "reasons": reasons,
    }


def thread_disagreements(folder, count=200, seed=11):
    """V16: the same damaged films with one and with four decoder threads."""
    films, path, differing = small_films(folder), folder / "mutant", 0
    for content in mutants(films, count, seed):
        path.write_bytes(content)
        one, four = (verdict(path, VideoLimits(threads=n)) for n in (1, 4))
        differing += one[0] != four[0] or (not one[0] and one[2] != four[2])
    return {"mutants": count, "disagreements": differing}


def leaks(folder, opens=400):
    """V17: films opened, half of them left after one frame, a third of them broken."""
    path, _ = write_kind(folder, "h264.mp4")
    broken = folder / "broken.mp4"
    broken.write_bytes(path.read_bytes()[:2000])

    def use(count):
        for index in range(count):
            try:
                with open_video(broken if index % 3 == 2 else path) as reader:
                    frames = reader.frames_at([0.0, 0.5])
                    next(frames)
                    if index % 2:
                        list(frames)
            except VideoError:
                pass

    use(40)
    worker = the_worker()

    def state():
        held = [f"/proc/{process}" for process in (os.getpid(), worker.process_id)]
        files = sum(len(os.listdir(f"{process}/fd")) for process in held)
        pages = sum(int(Path(f"{process}/statm").read_text().split()[1]) for process in held)
        return files, pages * os.sysconf("SC_PAGE_SIZE") // 1024

    files, kb = state()
    use(opens)
    same = the_worker().process_id == worker.process_id
    files_after, kb_after = state() if same else (files, kb)
    return {
        "opens": opens,
        "kB gained": kb_after - kb,
        "files gained": files_after - files,
        "same worker": same,
    }


def side_by_side(folder, workers=4):
    """V18: threads, and forks of this process, read one film; frames that differ from reading it alone."""
    path, times = write_kind(folder, "h264.mp4")

    def sums():
        with open_video(path) as reader:
            return [int(frame.sum()) + read_number(frame) for _, frame in reader.frames_at(times)]

    alone = sums()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(sums())) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    children = []
    for _ in range(workers):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = int(sums() != alone)
                sandbox._end_all()
            finally:
                os._exit(status)
        children.append(child)
    forks = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    threads_wrong = sum(one != alone for one in answers) + workers - len(answers)
    return {"threads": workers, "forks": workers, "mismatches": threads_wrong + forks + (sums() != alone)}


def bombs(folder):
    """V10: a GIF and a PNG of 12000 x 12000 and an mp4 of 16384 x 16384: reasons, and the most memory."""
    gif = b"GIF89a" + (12000).to_bytes(2, "little") * 2 + b"\x00\x00\x00,\x00\x00\x00\x00\xe0.\xe0."
    (folder / "gif.mp4").write_bytes(gif + b"\x00\x02\x02D\x01\x00;")
    head = struct.pack(">IIBBBBB", 12000, 12000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(3 * 12000 + 1) * 100)  # the rest never comes to be asked for
    chunks = [(b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")]
    png = b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    (folder / "png.mp4").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    large = folder / "large.mp4"
    write_film(large, codec="mjpeg", frames=3, pix_fmt="yuvj420p", time_base=Fraction(1, 25))
    content = bytearray(large.read_bytes())
    claim_jpeg_size(content, 16384)
    hidden = bytes(content)
    at = content.index(b"mp4v", content.index(b"stsd")) + 28  # the container's width and height
    content[at : at + 4] = (16384).to_bytes(2, "big") * 2
    large.write_bytes(content)
    (folder / "hidden.mp4").write_bytes(hidden)
    worker = fresh_worker()
    reasons = [reason_of(folder / f"{name}.mp4") for name in ("gif", "png", "large", "hidden")]
    return {"reasons": reasons, "peak MB": round(peak_mb(worker)), "same worker": the_worker() is worker}


def recovery(folder):
    """V19: the worker is killed, fills memory, writes garbage: reasons, and seconds to the next frame."""
    path, times = write_kind(folder, "h264.mp4")
    plain = process.PROGRAM
    broken = {
        "killed": None,
        "memory": standing_in("bytearray(8 << 30)"),
        "garbage": standing_in("link._channel.sendall(bytes(range(256)) * 5000)"),
        "crash": standing_in("os.abort()"),
    }
    reasons, slowest_s = {}, 0.0
    for name, program in broken.items():
        process.PROGRAM = program or plain
        reasons[name], worker = "", fresh_worker()
        try:
            with open_video(path) as reader:
                frames = reader.frames_at(np.repeat(times, 4))
                next(frames)
                if program is None:
                    os.kill(worker.process_id, signal.SIGKILL)
                list(frames)
        except VideoError as error:
            reasons[name] = error.reason
        finally:
            process.PROGRAM = plain
        start_s = time.monotonic()
        with open_video(path) as reader:
            assert read_number(next(reader.frames_at([0.4]))[1]) == 10
        slowest_s = max(slowest_s, time.monotonic() - start_s)
    return {"reasons": reasons, "slowest recovery s": round(slowest_s, 2)}


def standing_in(lines, before=""):
    """The program of a worker whose reading of frames is replaced.

    Args:
        lines: what it does in place; they see `link`, and may return an answer.
        before: what is said of `worker` first.
    """
    return f"""
import json, os, sys, time
sys.path[:] = json.loads(sys.argv[1])
from momentkit.video import worker
{before}
def stand_in(link, path, limits, request):
{textwrap.indent(lines, "    ")}
    return {{}}
worker.TASKS["frames"] = stand_in
worker.main(int(sys.argv[2]), int(sys.argv[3]))
"""


CLIPS = Path(__file__).parent / "clips"


def changed_clips(record=False):
    """V20: eight frames of stored clips after resizing, with one and two threads, against stored values.

    Scaling is not bit-exact across kinds of processors: what is held to is the mean of each of 8 x 4 cells,
    within one level; equality to the bit is counted.
    """
    stored = {} if record else json.loads((CLIPS / "frames.json").read_text())
    changed = bit_equal = 0
    for kind in SMALL_KINDS:
        rows = []
        for threads in (1, 2):
            with open_video(CLIPS / kind, VideoLimits(threads=threads)) as reader:
                pictures = [frame for _, frame in reader.frames_at(np.arange(8) * 0.3, (56, 96))]
            digest = hashlib.sha256(b"".join(frame.tobytes() for frame in pictures)).hexdigest()
            cells = [frame.reshape(4, 14, 8, 12, 3).mean((1, 3, 4)).round(1).tolist() for frame in pictures]
            rows.append({"sha256": digest, "cells": cells})
        if record:
            stored[kind] = rows[0]
        off = np.abs(np.array(rows[0]["cells"]) - np.array(stored[kind]["cells"])).max()
        changed += rows[0] != rows[1] or not off <= 1
        bit_equal += rows[0]["sha256"] == stored[kind]["sha256"]
    if record:
        (CLIPS / "frames.json").write_text(json.dumps(stored) + "\n")
    return {"clips": len(SMALL_KINDS), "changed": changed, "equal to the bit": bit_equal}


def hostile_texts(folder):
    """V12: play lists and names that point to a server of ours and to another film."""
    visits, running = [], threading.Event()
    running.set()
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.2)
    port = server.getsockname()[1]

    def listen():
        while running.is_set():
            try:
                visitor, address = server.accept()
            except TimeoutError:
                continue
            visits.append(address)
            visitor.close()

    listener = threading.Thread(target=listen)
    listener.start()
    canary, _ = write_kind(folder, "h264.ts")
    url = f"http://127.0.0.1:{port}/x.ts"
    texts = {
        "hls.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{url}\n#EXT-X-ENDLIST\n",
        "hls_local.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{canary}\n#EXT-X-ENDLIST\n",
        "concat.ffconcat": f"ffconcat version 1.0\nfile '{canary}'\n",
        "concat_net.ffconcat": f"ffconcat version 1.0\nfile '{url}'\n",
        "dash.mpd": f'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{url}</BaseURL></MPD>',
        "rtp.sdp": f"v=0\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
        "asx.asx": f'<asx version="3.0"><entry><ref href="{url}"/></entry></asx>',
        "pls.pls": f"[playlist]\nFile1={url}\nNumberOfEntries=1\n",
        "smil.rm": f'<smil><body><video src="{url}"/></body></smil>',
    }
    wanted = {}
    for name, text in texts.items():
        for alias in (name, name + ".mp4"):
            (folder / alias).write_text(text)
            wanted[alias] = "not_a_video"
    names = [
        url,
        f"concat:{canary}|{canary}",
        f"subfile,,start,0,end,0,,:{canary}",
        f"file:{canary}",
        "pipe:0",
    ]
    names += ["data:video/mp4;base64,AAAA", "lavfi", "-"]
    names += [f"{scheme}:{canary}" for scheme in ("async", "cache", "crypto")]
    wanted.update(dict.fromkeys(names, "missing"))
    (folder / "concat:h264.ts|h264.ts").write_bytes(b"no film " * 100)  # a file of that very name is a file
    wanted["concat:h264.ts|h264.ts"] = "not_a_video"
    with contextlib.chdir(folder):
        passed = [name for name, reason in wanted.items() if reason_of(name) != reason]
    time.sleep(0.3)
    running.clear()
    listener.join()
    server.close()
    return {"texts": 2 * len(texts), "names": len(names) + 1, "requests": len(visits), "not refused": passed}
