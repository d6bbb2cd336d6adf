"""Pictures and files: repeatable, the right actor in the right place, mp4 that decodes."""

from pathlib import Path

import av
import numpy as np
import pytest

from momentkit.core.errors import ConfigError
from momentkit.data.synthetic.draw import RGB, Renderer
from momentkit.data.synthetic.film import write_film
from momentkit.data.synthetic.plan import FilmOptions, make_film
from momentkit.data.synthetic.samples import read_film
from momentkit.data.synthetic.world import WIDTH, Actor, Film, Pose, Scene

SHORT = make_film(4, FilmOptions(shortest_s=12, longest_s=12))


def still(actor: Actor, pose: Pose) -> Film:
    scene = Scene(start_s=0, end_s=12, backdrop=0, seed=1, cast=(actor,), entry=(pose,), events=())
    return Film(vid="still", seed=1, duration_s=12, scenes=(scene,))


def test_a_picture_depends_on_its_time_alone() -> None:
    film = next(film for film in map(make_film, range(20)) if len(film.scenes) == 3)
    times_s = np.array([scene.start_s + 1.5 for scene in film.scenes])
    together = Renderer(film, 72, 128).frames(times_s)
    renderer = Renderer(film, 72, 128)
    alone = np.concatenate([renderer.frames(times_s[i : i + 1]) for i in (2, 1, 0)])[::-1]
    assert together.dtype == np.uint8 and together.shape == (3, 72, 128, 3)
    assert (together == alone).all()


@pytest.mark.parametrize("colour", sorted(RGB))
def test_an_actor_is_painted_its_colour_where_it_stands(colour: str) -> None:
    film = still(Actor(colour=colour, shape="square"), Pose(x=0.5, y=0.4, size=1.5))
    picture = Renderer(film, 144, 256).frames(np.array([0.0]))[0] / 255
    row, column = round(0.49 * 144), round((0.5 + 0.02) / WIDTH * 256)  # below the face
    patch = picture[row - 1 : row + 3, column + 8 : column + 12].mean((0, 1))
    distance = {name: np.abs(patch - np.array(rgb) * 0.97).sum() for name, rgb in RGB.items()}
    assert min(distance, key=lambda name: distance[name]) == colour


@pytest.mark.parametrize("shape", ["circle", "square", "triangle", "star", "heart", "cross"])
def test_one_film_shows_the_same_at_two_sizes(shape: str) -> None:
    film = still(Actor(colour="yellow", shape=shape), Pose(x=0.9, y=0.5))
    small = Renderer(film, 72, 128).frames(np.array([0.5]))[0].astype(float)
    large = Renderer(film, 144, 256).frames(np.array([0.5]))[0].astype(float)
    halved = large.reshape(72, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(halved - small).mean() < 4
    assert np.abs(halved[26:46, 55:75] - small[26:46, 55:75]).mean() < 12


def test_the_mp4_holds_every_frame_at_the_size_asked_for(tmp_path: Path) -> None:
    path = write_film(SHORT, tmp_path / "film.mp4", height=72, width=128, fps=8)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].codec_context.name == "h264"
    drawn = Renderer(SHORT, 72, 128).frames(np.arange(96) / 8)
    assert len(frames) == 96 and frames[0].shape == (72, 128, 3)
    assert np.abs(np.stack(frames).astype(float) - drawn).mean() < 8
    again = write_film(SHORT, tmp_path / "again.mp4", height=72, width=128, fps=8)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("wrong", [{"height": 71}, {"fps": 0}, {"quality": 99}])
def test_a_file_that_cannot_be_is_refused(wrong: dict, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        write_film(SHORT, tmp_path / "film.mp4", **wrong)
    with pytest.raises(ConfigError, match="mp4"):
        write_film(SHORT, tmp_path / "film.avi")


def test_samples_name_actors_at_their_place() -> None:
    film = still(Actor(colour="red", shape="star"), Pose(x=WIDTH / 4, y=0.25))
    samples = read_film(film, np.array([2, 3]), 72, 128)
    assert samples.frames_N.shape == (2, 4, 72, 128, 3)
    assert samples.there_NA.tolist() == [[1, 0, 0, 0, 0]] * 2
    assert np.allclose(samples.place_NA2[:, 0], [0.25, 0.25])
    assert samples.role_NAR.sum() == 0
