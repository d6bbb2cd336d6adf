"""From a film to features: which frames an encoder sees, in how much memory, and what is refused."""

import gc
import math
import threading
from fractions import Fraction
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from video_clips import FAST_X264, draw_number, read_number, write_film, write_kind

from momentkit.core.contract import StreamContract
from momentkit.core.errors import FeatureError, VideoError
from momentkit.core.types import TextFeatures
from momentkit.features import extract
from momentkit.features.extract import clip_count, encode_streams, encode_text, encode_video
from momentkit.video.reader import open_video


class Numbers:
    """A frame encoder whose row is the numbers of the frames it was shown, and a one."""

    def __init__(self, clip_length_s=1.0, offsets_s=(0.0,), size=None, normalisation="none", dtype="float32"):
        self.clip_length_s, self.frame_offsets_s, self.frame_size = clip_length_s, offsets_s, size
        self.contract = StreamContract(
            encoder="numbers", layer="n", dim=len(offsets_s) + 1, normalisation=normalisation, dtype=dtype
        )
        self.calls = []

    def encode_frames(self, frames):
        self.calls.append(len(frames))
        rows = np.array([read_number(frame) for frame in frames], np.float32)
        rows = rows.reshape(-1, len(self.frame_offsets_s))
        return np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1)


def film(folder, frames=60, name="film.mp4"):
    path = folder / name
    write_film(path, frames=frames, options=FAST_X264)
    return path


@pytest.mark.parametrize(
    ("duration_s", "clip_s", "clips"),
    [(2.4, 1.0, 3), (2.0, 1.0, 2), (2.0000000001, 1.0, 2), (0.04, 2.0, 1), (150.0, 2.0, 75), (0.0, 2.0, 1)],
)
def test_every_second_is_in_a_clip_and_a_rounding_error_adds_none(duration_s, clip_s, clips):
    assert clip_count(duration_s, clip_s) == clips


def test_a_clip_is_shown_the_frames_at_its_start_and_offsets_and_the_last_frame_at_the_end(tmp_path):
    encoder = Numbers(1.0, (0.0, 0.25, 0.5, 0.9))
    features = encode_video(film(tmp_path), encoder)
    wanted = [[0, 6, 12, 22], [25, 31, 37, 47], [50, 56, 59, 59]]
    np.testing.assert_array_equal(features.features_TD[:, :4], wanted)
    assert features.duration_s == pytest.approx(2.4) and features.clip_length_s == 1.0
    assert features.features_TD.dtype == np.float32


def test_the_same_film_in_every_container_gives_the_same_features(tmp_path):
    kinds = ("h264.mp4", "h264.mkv", "h264.ts", "vp9.webm", "mpeg4.avi", "hevc.mp4", "fragmented.mp4")
    rows = [
        encode_video(write_kind(tmp_path, kind)[0], Numbers(0.4, (0.0, 0.2))).features_TD for kind in kinds
    ]
    for other in rows[1:]:
        np.testing.assert_array_equal(other, rows[0])


def test_no_more_than_a_chunk_of_frames_is_held_and_chunks_change_nothing(tmp_path, monkeypatch):
    path = film(tmp_path, frames=200)
    whole = encode_video(path, Numbers(0.2, (0.0, 0.1)))
    monkeypatch.setattr(extract, "CHUNK_BYTES", 5 * 32 * 64 * 3)
    encoder, seen = Numbers(0.2, (0.0, 0.1), size=(32, 64)), []
    parts = encode_video(path, encoder, progress=lambda done, total: seen.append((done, total)))
    assert max(encoder.calls) == 6 and len(encoder.calls) > 10
    np.testing.assert_array_equal(parts.features_TD, whole.features_TD)
    assert seen[-1] == (40, 40) and [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_memory_does_not_grow_with_the_film(tmp_path):
    path = tmp_path / "large.mp4"
    picture = np.tile(draw_number(7), (8, 5, 1))
    write_film(path, pictures=[picture] * 300, frames=300, options={"preset": "ultrafast"})
    resident = []

    class Watching(Numbers):
        def encode_frames(self, frames):
            resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
            return super().encode_frames(frames)

    gc.disable()  # a decoded frame must not wait for the collector, which counts objects, not bytes
    try:
        encode_video(path, Watching(0.04, size=(64, 128)))
    finally:
        gc.enable()
    assert len(resident) > 4
    assert resident[-1] - resident[1] < 16 * 1024**2


def test_rows_are_normalised_and_rounded_as_the_contract_says(tmp_path):
    path = film(tmp_path)
    raw = encode_video(path, Numbers()).features_TD
    unit = encode_video(path, Numbers(normalisation="l2")).features_TD
    np.testing.assert_allclose(unit, raw / (np.linalg.norm(raw, axis=1, keepdims=True) + 1e-5), rtol=1e-6)
    third = Numbers(dtype="float16")
    third.encode_frames = lambda frames: np.full((len(frames), 2), 1 / 3, np.float32)
    assert encode_video(path, third).features_TD[0, 0] == np.float32(np.float16(1 / 3))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("normalisation", ["l2", "none"])
def test_a_number_that_is_not_finite_is_refused_with_its_place(bad, normalisation, tmp_path):
    class Broken(Numbers):
        def encode_frames(self, frames):
            rows = super().encode_frames(frames)
            rows[1, 0] = bad
            return rows

    with pytest.raises(FeatureError, match=r"not finite.*0:00:01\.000"):
        encode_video(film(tmp_path), Broken(normalisation=normalisation))


def test_a_wrong_number_of_rows_is_refused(tmp_path):
    class Short(Numbers):
        def encode_frames(self, frames):
            return super().encode_frames(frames)[:-1]

    with pytest.raises(FeatureError, match=r"shape \(2, 2\), expected \(3, 2\)"):
        encode_video(film(tmp_path), Short())


def test_a_cut_film_is_refused_unless_tolerated_and_then_ends_at_the_cut(tmp_path):
    path, _ = write_kind(tmp_path, "h264.mkv")
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(VideoError, match="cut off") as caught:
        encode_video(path, Numbers())
    assert caught.value.reason == "truncated"
    features = encode_video(path, Numbers(0.4), tolerate_cut=True)
    assert 1.0 < features.duration_s < 2.4
    np.testing.assert_array_equal(features.features_TD[:, 0], np.arange(len(features.features_TD)) * 10)


def test_a_film_that_starts_late_and_varies_in_rate_is_sampled_by_its_stamps(tmp_path):
    stamps = [7 + Fraction(i, 30) for i in range(60)] + [9 + Fraction(i, 2) for i in range(6)]
    path = tmp_path / "vfr.mkv"
    times = write_film(path, times=stamps, rate=30, options=FAST_X264)
    features = encode_video(path, Numbers(0.5))
    wanted = [
        max(i for i, t in enumerate(times) if t <= clip * 0.5 + 1e-3)
        for clip in range(len(features.features_TD))
    ]
    np.testing.assert_array_equal(features.features_TD[:, 0], wanted)


class Words:
    contract = StreamContract(encoder="words", layer="w", dim=2)

    def __init__(self, rows):
        self.rows = rows

    def encode_text(self, sentences):
        return [
            TextFeatures(words_LE=np.array(self.rows, np.float32), unknown_words=("x",)) for _ in sentences
        ]


def test_words_are_normalised_and_unknown_ones_kept():
    (features,) = encode_text(["a"], Words([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(features.words_LE, [[0.6, 0.8], [0.0, 0.0]], atol=1e-5)
    assert features.unknown_words == ("x",)


@pytest.mark.parametrize("rows", [[[math.nan, 1.0]], [[math.inf, 1.0]], np.zeros((0, 2))])
def test_words_that_are_not_finite_or_not_there_are_refused(rows):
    with pytest.raises(FeatureError, match="a dog"):
        encode_text(["a dog"], Words(rows))


SMALL = 4 * 32 * 64 * 3  # bytes of a chunk of four frames


def decode_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_the_next_chunk_is_decoded_while_one_is_encoded_and_nothing_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "CHUNK_BYTES", SMALL)
    decoded, plain = [threading.Event() for _ in range(10)], extract._chunks

    def chunks(*arguments):
        for number, frames in enumerate(plain(*arguments)):
            decoded[number].set()
            yield frames

    class Waiting(Numbers):
        def encode_frames(self, frames):
            following = len(self.calls) + 1
            assert following == 10 or decoded[following].wait(20)
            return super().encode_frames(frames)

    path, encoder = film(tmp_path, frames=200), Waiting(0.2, size=(32, 64))
    monkeypatch.setattr(extract, "_chunks", chunks)
    overlapped = encode_video(path, encoder)
    times_s = np.arange(40)[:, None] * 0.2
    with open_video(path) as reader:
        serial = [Numbers(0.2).encode_frames(part) for part in plain(reader, times_s, (32, 64), Event())]
    assert encoder.calls == [len(rows) for rows in serial] == [4] * 10
    np.testing.assert_array_equal(overlapped.features_TD, np.concatenate(serial))
    assert not decode_threads()


def test_what_goes_wrong_on_either_side_comes_out_and_leaves_no_thread(tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "CHUNK_BYTES", SMALL)
    path, encoder = film(tmp_path, frames=200), Numbers(0.2, size=(32, 64))
    encoder.encode_frames = lambda frames: encoder.calls.append(len(frames)) or 1 / 0
    with pytest.raises(ZeroDivisionError):
        encode_video(path, encoder)
    assert encoder.calls == [4] and not decode_threads()

    plain, reader = extract._chunks, Numbers(0.2, size=(32, 64))

    def broken(*arguments):
        yield from list(plain(*arguments))[:3]
        raise VideoError("truncated", "it ends")

    monkeypatch.setattr(extract, "_chunks", broken)
    with pytest.raises(VideoError, match="it ends"):
        encode_video(path, reader)
    assert reader.calls == [4] * 3 and not decode_threads()


def test_chunks_that_nobody_wants_any_more_end_the_decoding_between_two_frames(tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "CHUNK_BYTES", SMALL)
    given_up, reached, given = Event(), Event(), []
    monkeypatch.setattr(extract, "Event", lambda: given_up)
    with open_video(film(tmp_path, frames=200)) as reader:
        plain = reader.frames_at

        def counted(*arguments):
            for pair in plain(*arguments):
                given.append(pair)
                if len(given) == 6:  # in the second chunk
                    reached.set()
                    given_up.wait(20)
                yield pair

        monkeypatch.setattr(reader, "frames_at", counted)
        chunks = extract._decoded_ahead(reader, np.arange(40)[:, None] * 0.2, (32, 64))
        assert len(next(chunks)) == 4 and reached.wait(20)
        chunks.close()
        assert len(given) == 6 and not decode_threads()


class Levels(Numbers):
    """As `Numbers`, wider: a second stream."""

    def __init__(self, clip_length_s=1.0):
        super().__init__(clip_length_s, (0.0, 0.5))

    def encode_frames(self, frames):
        return -super().encode_frames(frames)


def test_streams_lie_side_by_side_each_as_its_encoder_alone_gives_it(tmp_path):
    path, seen = film(tmp_path), []
    first, second = Numbers(normalisation="l2"), Levels()
    joined = encode_streams(path, (first, second), progress=lambda done, clips: seen.append((done, clips)))
    alone = [encode_video(path, one).features_TD for one in (first, second)]
    np.testing.assert_array_equal(joined.features_TD, np.concatenate(alone, 1))
    assert seen == [(3, 6), (6, 6)]


def test_a_film_that_grows_between_two_readings_is_cut_to_the_shorter_and_said(tmp_path, caplog):
    path = film(tmp_path)

    def grow(done, clips):
        if done == 3:  # the first encoder's last chunk
            film(tmp_path, frames=110)

    joined = encode_streams(path, (Numbers(), Levels()), progress=grow)
    assert joined.features_TD.shape == (3, 5) and joined.duration_s == pytest.approx(2.4)
    assert "changed while it was read" in caplog.text and "3, 5 clips" in caplog.text
