"""The sound of films: at the right time, mixed by averaging, resampled, silent where nothing is stored."""

import av
import numpy as np
import pytest

from momentkit.core.errors import VideoError
from momentkit.video.limits import VideoLimits
from momentkit.video.sound import read_sound

RATE = 48000


def write_film(path, sound_SC, *, codec="pcm_s16le", start_s=0.0, skip=(), seconds=4, rate=RATE):
    """A grey film of 10 frames a second, and sound in blocks of 0.1 s, those in `skip` left out."""
    with av.open(str(path), "w") as output:
        film = output.add_stream("libx264", rate=10)
        film.width = film.height = 64
        film.pix_fmt = "yuv420p"
        layout = "mono" if sound_SC is not None and sound_SC.shape[1] == 1 else "stereo"
        track = None if sound_SC is None else output.add_stream(codec, rate=rate, layout=layout)
        for index in range(10 * seconds):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 128, np.uint8), format="rgb24")
            frame.pts = index
            output.mux(film.encode(frame))
        output.mux(film.encode(None))
        if track is None:
            return
        block = rate // 10
        for index in range(len(sound_SC) // block):
            if index in skip:
                continue
            piece = sound_SC[index * block : (index + 1) * block]
            frame = av.AudioFrame.from_ndarray(
                (piece * 32767).round().astype(np.int16).reshape(1, -1), format="s16", layout=layout
            )
            frame.rate, frame.pts = rate, index * block + round(start_s * rate)
            if codec != "pcm_s16le":
                frame = av.AudioResampler("fltp", layout, rate).resample(frame)[0]
            output.mux(track.encode(frame))
        output.mux(track.encode(None))


def heard(path, rate=RATE, **options):
    return np.concatenate(list(read_sound(path, rate, **options)))


def noise(seconds, channels=1):
    return np.random.default_rng(0).uniform(-0.6, 0.6, (int(seconds * RATE), channels))


def test_samples_come_out_as_they_were_stored(tmp_path):
    sound = noise(4)
    write_film(tmp_path / "film.mkv", sound)
    np.testing.assert_allclose(heard(tmp_path / "film.mkv"), sound[:, 0], rtol=0, atol=1e-4)


def test_two_channels_are_averaged(tmp_path):
    sound = noise(2, channels=2)
    write_film(tmp_path / "film.mkv", sound)
    np.testing.assert_allclose(heard(tmp_path / "film.mkv"), sound.mean(1), rtol=0, atol=1e-4)


def test_a_tone_keeps_its_place_and_height_at_another_rate(tmp_path):
    t = np.arange(4 * RATE) / RATE
    write_film(tmp_path / "film.mkv", (0.5 * np.sin(2 * np.pi * 440 * t))[:, None])
    got = heard(tmp_path / "film.mkv", 32000)
    assert abs(len(got) - 4 * 32000) <= 32
    wanted = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(got)) / 32000)
    np.testing.assert_allclose(got[500:-500], wanted[500:-500], rtol=0, atol=2e-3)


def test_a_click_in_aac_is_heard_when_it_happens(tmp_path):
    sound = np.zeros((4 * RATE, 1))
    sound[int(2.5 * RATE) : int(2.5 * RATE) + 200] = 0.8
    write_film(tmp_path / "film.mp4", sound, codec="aac")
    assert abs(int(np.argmax(np.abs(heard(tmp_path / "film.mp4")))) / RATE - 2.5) < 0.006


def test_sound_that_begins_late_is_preceded_by_silence(tmp_path):
    sound = noise(2)
    write_film(tmp_path / "film.mkv", sound, start_s=1.5)
    got = heard(tmp_path / "film.mkv")
    assert not got[: int(1.49 * RATE)].any()
    np.testing.assert_allclose(got[int(1.5 * RATE) :], sound[:, 0], rtol=0, atol=1e-4)


def test_time_zero_is_the_first_frame_s_stamp(tmp_path):
    sound = noise(2)
    write_film(tmp_path / "film.mkv", sound)
    got = heard(tmp_path / "film.mkv", first_stamp_s=0.5)
    np.testing.assert_allclose(got, sound[int(0.5 * RATE) :, 0], rtol=0, atol=1e-4)


def test_a_gap_is_silence_and_what_follows_stays_in_place(tmp_path):
    sound = noise(3)
    write_film(tmp_path / "film.mkv", sound, skip=range(10, 15))
    wanted = sound[:, 0].copy()
    wanted[RATE : int(1.5 * RATE)] = 0
    np.testing.assert_allclose(heard(tmp_path / "film.mkv"), wanted, rtol=0, atol=1e-4)


def test_a_film_without_sound_a_missing_one_and_too_long_a_track_are_refused(tmp_path):
    write_film(tmp_path / "silent.mkv", None)
    with pytest.raises(VideoError, match="has no sound"):
        heard(tmp_path / "silent.mkv")
    with pytest.raises(VideoError, match="cannot find"):
        heard(tmp_path / "nothing.mkv")
    (tmp_path / "text.mkv").write_text("not a film")
    with pytest.raises(VideoError, match="cannot be read"):
        heard(tmp_path / "text.mkv")
    write_film(tmp_path / "late.mkv", noise(1), start_s=3.0)
    with pytest.raises(VideoError, match="beyond 2 s"):
        heard(tmp_path / "late.mkv", limits=VideoLimits(max_duration_s=2))


def test_a_cut_file_gives_what_is_there(tmp_path):
    sound = noise(4)
    write_film(tmp_path / "film.mkv", sound)
    data = (tmp_path / "film.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    got = heard(tmp_path / "cut.mkv")
    assert 0 < len(got) < 4 * RATE
    np.testing.assert_allclose(got, sound[: len(got), 0], rtol=0, atol=1e-4)
