"""The one door to a video file: checks before opening, allow-lists, limits, one error class.

A path that is no regular file is refused without opening it; containers, protocols and codecs are on lists
(a decoder nobody uses is the hole an attacker does). Every exception of the binding becomes a `VideoError`.
"""

import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from momentkit.core.errors import MomentkitError, VideoError
from momentkit.video.limits import Stopwatch, VideoLimits
from momentkit.video.structure import is_cut

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,h264,hevc"  # bare streams last
_MODERN = ("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "libaom-av1")  # the last two decode av1
_HOLE = bytes(256)
_NO_NAME = bytes(16)
_OLDER = ("mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "prores")
CODECS = frozenset((*_MODERN, *_OLDER))
_HELD_FRAMES, _HELD_BYTES = 16, 2  # a decoder may hold 16 frames and one a thread; bytes of a pixel, about
_KINDS = "mp4, mov, mkv, webm, avi, ts and bare H.264"


class ThreadedDecodingFailed(Exception):
    """A decoder with several threads met an error: it loses frames then and reports it late or never."""


class SkippingFailed(Exception):
    """Something was not in order after packets had been left out; read in order, it may look different."""


@dataclass
class VideoSource:
    """An open file and its chosen video stream.

    Attributes:
        path: of the file.
        container, stream: the binding's objects; valid inside the `with` of `open_source`.
        limits, watch: what may not be exceeded.
        video_streams: how many the file has, cover pictures not counted.
        cut: bytes are missing at the end.
        file: the same file, for looking at bytes that the binding passes over.
        damage: what could not be read before the end, for a person; "" if all could.
        horizon: set once the packets are used up before their time. Frames stamped before it, in the
            stream's time base, are as in the whole file; None where nothing is missing.
        skipped: packets were left undecoded, because no frame asked for needs them.
        restart: stamp of the key frame that the decoder started anew with, until it has given it.
    """

    path: Path
    container: InputContainer
    stream: VideoStream
    limits: VideoLimits
    watch: Stopwatch
    video_streams: int
    cut: bool
    file: BinaryIO
    damage: str = ""
    horizon: int | None = None
    skipped: bool = False
    restart: int | None = None
    _first_pts: int | None = None

    @property
    def complete(self) -> bool:
        """False once anything showed that bytes are missing or damaged."""
        return not (self.cut or self.damage)

    @property
    def threaded(self) -> bool:
        """Whether several packets can be in the decoder at once."""
        return self.limits.decoder_threads > 1

    @property
    def reorders_unstamped(self) -> bool:
        """Whether frames are shown out of the order stored in a container that has no stamps to say so."""
        return self.container.format.name == "avi" and bool(self.stream.codec_context.has_b_frames)

    @property
    def frame_length_s(self) -> float:
        """Usual length of a frame by the header's rate, in seconds; 1/25 where it gives none."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return float(1 / rate) if rate and rate > 0 else 0.04

    def packets(self, *, stop_at_damage: bool) -> Iterator[Packet]:
        """Packets of the stream in the order stored, the end mark left out.

        The last packet of a cut file may be half a picture, so it is not given. A frame is never shown
        before its packet's decoding stamp, and these only rise: all that is shown before the first missing
        packet's decoding stamp is there, which is what `horizon` says.

        Args:
            stop_at_damage: end before a packet marked as damaged; else pass over it and note it.
        """
        held: Packet | None = None
        try:
            for packet in self.container.demux(self.stream):
                self.watch.check()
                if packet.size == 0 and packet.dts is None and packet.pts is None:
                    continue
                if packet.is_corrupt or self._has_hole(packet):
                    self.damage = self.damage or "a packet is damaged"
                    if stop_at_damage or self.cut:
                        self.horizon = self.first_in_doubt(packet)
                        break
                    continue
                if held is not None:
                    yield held
                elif self._first_pts is None:
                    self._first_pts = packet.pts
                held = packet
        except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
            self.cut, self.damage = True, words_of(error)
        if held is None:
            return
        if self.cut and self.horizon is None:
            self.horizon = self.first_in_doubt(held)
        else:
            yield held

    def _has_hole(self, packet: Packet) -> bool:
        """Whether a packet holds a row of zero bytes that its codec does not write.

        A block of a disk or of a download that never arrived reads as zeros; VP9 decodes them to some picture
        without a word. Zeros behind the data are padding.
        """
        if self.stream.codec_context.name not in _MODERN:
            return False
        content = bytes(packet).rstrip(b"\0")
        return not content or _HOLE in content or self._hole_behind(packet)

    def _hole_behind(self, packet: Packet) -> bool:
        """Whether zeros stand where Matroska has the name of the next element: a packet may be lost there."""
        if packet.pos is None or not self.container.format.name.startswith("matroska"):
            return False
        self.file.seek(packet.pos + packet.size)
        return self.file.read(len(_NO_NAME)) == _NO_NAME

    def note_damage(self, what: str, before: int | None) -> None:
        """Note what cannot be decoded, and that reading ends there: frames before this stamp are whole."""
        if self.skipped:
            raise SkippingFailed
        self.damage = self.damage or what
        if before is not None:
            self.horizon = before

    def first_in_doubt(self, packet: Packet) -> int | None:
        """The earliest stamp a frame can have that needs this packet or one after it."""
        if packet.dts is None:  # Matroska leaves them out for the first few packets
            return self._first_pts
        return packet.dts - (self.stream.codec_context.has_b_frames if self.reorders_unstamped else 0)


def no_frames(source: VideoSource, seen: str = "") -> VideoError:
    """The error for a stream that gives no frame, also where the decoder found its frames too large."""
    detail = f" ({seen})" if seen else ""
    return VideoError(
        "no_frames",
        f"{source.path} has a video stream, but no frame of at most {source.limits.max_pixels} pixels "
        f"decodes{detail}; convert it to H.264",
    )


def words_of(error: BaseException) -> str:
    """What the binding says, without its file name and number."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


@contextmanager
def open_source(path: str | Path, limits: VideoLimits, watch: Stopwatch) -> Iterator[VideoSource]:
    """Open a file behind every check; closed when the `with` ends, however it ends.

    Raises:
        VideoError: any reason; also for whatever the binding raises inside the `with`.
    """
    path = Path(path)
    check_file(path, limits)
    cut = False
    try:
        cut = is_cut(path)
        whitelist = {
            "format_whitelist": CONTAINERS,
            "protocol_whitelist": "file",
            "codec_whitelist": ",".join(sorted(CODECS)),
        }
        # An absolute path starts with "/": no name of a file can be read as "http:", "concat:" or "subfile,".
        with (
            path.open("rb") as file,
            av.open(
                str(path.absolute()),
                options={"max_pixels": str(limits.max_pixels)},
                container_options=whitelist,
                metadata_errors="replace",
            ) as container,
        ):
            stream, count = _choose_stream(container, path)
            _check_stream(stream, path, limits)
            yield VideoSource(path, container, stream, limits, watch, count, cut, file)
    except (ThreadedDecodingFailed, SkippingFailed):
        raise
    except VideoError as error:
        if cut and error.reason in ("no_frames", "no_video_stream"):
            raise truncated(path, "nothing of the film is there") from error
        raise
    except MomentkitError:  # of the work done with the film, such as a cut that cannot be written
        raise
    except Exception as error:
        raise _wrap(error, path, cut) from error


def check_file(path: Path, limits: VideoLimits) -> None:
    """Refuse what is no regular file of a fit size, without opening it.

    Raises:
        VideoError: missing, not_a_video (directory, pipe, device), empty, too_many_bytes.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise VideoError("missing", f"cannot find the video {path}: {why}; check the path") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise VideoError("not_a_video", f"{path} is {kind}; give the path of a film ({_KINDS})")
    if status.st_size == 0:
        raise VideoError("empty", f"{path} is empty (0 bytes); fetch or record it again")
    if status.st_size > limits.max_bytes:
        raise VideoError(
            "too_many_bytes", f"{path} has {status.st_size} bytes; at most {limits.max_bytes} are read"
        )


def _choose_stream(container: InputContainer, path: Path) -> tuple[VideoStream, int]:
    """The largest default video stream, or the largest where none is the default; cover pictures are none."""
    films = [
        stream
        for stream in container.streams.video
        if not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
    ]
    if not films:
        have = ", ".join(sorted({stream.type for stream in container.streams})) or "no stream at all"
        pictures = " (a cover picture is no film)" if container.streams.video else ""
        raise VideoError("no_video_stream", f"{path} has no film in it, only {have}{pictures}")
    default = [stream for stream in films if stream.disposition & Disposition.default]
    return max(default or films, key=_pixels), len(films)


def _pixels(stream: VideoStream) -> int:
    context = stream.codec_context
    return context.width * context.height if context is not None else 0


def _check_stream(stream: VideoStream, path: Path, limits: VideoLimits) -> None:
    context = stream.codec_context
    if context is None or context.name not in CODECS:
        raise VideoError(
            "unsupported_codec",
            f"{path} is coded as {context.name if context else 'something unknown'}; "
            f"read are {', '.join(sorted(CODECS))}; convert it to H.264",
        )
    if _pixels(stream) > limits.max_pixels:
        raise VideoError(
            "too_many_pixels",
            f"{path} has frames of {context.width} x {context.height}; at most {limits.max_pixels} "
            "pixels are decoded; scale it down",
        )
    needed_bytes = _pixels(stream) * _HELD_BYTES * (_HELD_FRAMES + limits.decoder_threads)
    if needed_bytes > limits.max_memory_bytes:  # H.264 takes a lack of memory for damage, so it is asked here
        raise VideoError(
            "out_of_memory",
            f"{path} has frames of {context.width} x {context.height}, which may take "
            f"{needed_bytes >> 20} MB to decode; allowed are {limits.max_memory_bytes >> 20} MB; "
            "scale it down or raise max_memory_bytes",
        )
    context.options = {"max_pixels": str(limits.max_pixels)}
    context.thread_count = limits.decoder_threads
    context.thread_type = "AUTO"


def _wrap(error: Exception, path: Path, cut: bool) -> VideoError:
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return VideoError("out_of_memory", f"{path} needs more memory than there is; scale it down")
    if isinstance(error, PermissionError | FileNotFoundError):
        return VideoError("missing", f"cannot read {path}: {words_of(error)}; check the path and its rights")
    if cut:
        return truncated(path, "it cannot be opened")
    return VideoError(
        "not_a_video", f"{path} cannot be read as a film ({words_of(error)}); read are {_KINDS}"
    )


def truncated(path: Path, detail: str) -> VideoError:
    """The error for a file whose end is missing or whose bytes are damaged.

    Args:
        detail: what was seen, such as "it is damaged at 0:00:03.000".
    """
    return VideoError("truncated", f"{path} is cut off or damaged: {detail}; fetch or copy it again")
