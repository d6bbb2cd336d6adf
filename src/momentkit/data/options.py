"""The [data] section of a configuration file: where annotations and features lie and how they are read.

[data]
root = "../shared/data/charades_clip"
layout = "charades"
train = "train.jsonl"
val = "val.jsonl"
clip_length_s = 1.0

[[data.video]]                            # one table a stream; their order is the order of the channels
folder = "clip"
encoder = "openai/clip-vit-base-patch32"
layer = "image_embeds"
dim = 512
fps = 1.0

[data.text]
folder = "text"
encoder = "sentence-transformers/all-MiniLM-L6-v2"
layer = "last_hidden_state"
dim = 384

[data.audio]                              # if there is any: a stream like those of the video
folder = "audio"

A folder may be one HDF5 file of all videos (`c3d.hdf5`), the text's a file of word vectors
(`glove.6B.300d.txt`).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

from momentkit.core.contract import FeatureContract, StreamContract
from momentkit.core.errors import ConfigError
from momentkit.features.words import Tokens, is_word_file

# "subtitles": captions of videos stand for queries, each with the window in which it is spoken (Moment-DETR's
# weakly supervised pre-training). No ratings; validated on rated rows.
# "own": rows with windows and, if there are any, ratings of clips; nothing else is asked of them.
Layout = Literal[
    "qvhighlights", "subtitles", "charades", "tacos", "activitynet", "didemo", "tvsum", "youtube", "own"
]
# Name of a row's text file in the published releases.
_TEXT_FILES: dict[Layout, str] = {
    "qvhighlights": "qid{qid}",
    "subtitles": "qid{qid}",
    "charades": "qid{qid}",
    "tacos": "{qid}",
    "activitynet": "qid{qid}",
    "didemo": "qid{qid}",
    "own": "qid{qid}",
    "tvsum": "{vid}",
    "youtube": "{vid}",
}


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """One place of features and what they are (the fields of its `StreamContract`)."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    folder: (
        str  # relative to the root: a folder, an HDF5 file of all videos, or (text) a file of word vectors
    )
    encoder: str
    layer: str
    dim: int
    # Array of an npz or of an HDF5 group; "": "features" for video and audio, "last_hidden_state" for text.
    key: str = ""
    # Names with {vid} or {qid}, the ending optional; (): the layout's. Several (TVSum's {vid}_rgb, {vid}_opt)
    # are put side by side before they are normalised.
    files: tuple[str, ...] = ()
    revision: str = ""
    fps: float = 0.0
    crop: str = ""
    dtype: str = "float32"
    normalisation: Literal["l2", "unit", "none"] = "l2"  # unit: x / max(||x||, 1e-12), of 2D-TAN's line
    tokens: Tokens = "split"  # what a word is, where folder is a file of word vectors

    def __post_init__(self) -> None:
        for name in self.files:
            if "{" in name.replace("{vid}", "").replace("{qid}", ""):
                raise ConfigError(f"files knows {{vid}} and {{qid}} only, got {name!r}")
        if not self.dim > 0:
            raise ConfigError(f"dim must be positive, got {self.dim}")

    @property
    def is_word_file(self) -> bool:
        """Whether sentences are looked up word by word."""
        return is_word_file(self.folder)

    @property
    def contract(self) -> StreamContract:
        """What the features are."""
        return StreamContract(
            encoder=self.encoder,
            revision=self.revision,
            layer=self.layer,
            dim=self.dim,
            fps=self.fps,
            crop=self.crop,
            dtype=self.dtype,
            normalisation=self.normalisation,
        )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Options of a data set."""

    root: str  # folder of annotations and features
    layout: Layout  # decides the label rule, the names of the text files and what a video is called
    train: str  # annotation files, relative to the root: JSON lines, or the layout's first form
    val: str
    video: tuple[StreamConfig, ...]
    text: StreamConfig
    audio: StreamConfig | None = None
    # Audio as an input of its own (UVCOM's audio_dim), or behind the video's channels (the DETR family).
    audio_apart: bool = False
    lengths: str = ""  # table of video lengths, for the text form of Charades-STA and for DiDeMo
    train_text: str = ""  # folder of the training rows' text files where it is another one; "": text.folder
    clip_length_s: float
    max_clips: int = -1  # rows kept of each video; -1: all
    # Rows each video is averaged to, whatever its length (TACoS and ActivityNet of MomentDiff 100, TACoS of
    # DiffusionVMR 75); a clip is then duration / clips long. 0: as the files are.
    clips: int = 0
    clips_rule: Literal["all", "published"] = "all"  # published: the last row of a video is left out
    max_words: int = -1  # rows kept of each sentence; -1: all. The published code makes 100 of -1
    max_windows: int | None = None  # windows kept of each row, drawn by chance; None: all. DETR family: 5
    tef: bool = True  # append the time channels
    # Seconds a clip stands for when moments become labels: duration/T (CG-DETR, LD-DETR, FlashVTG) or the
    # clip length (MomentDiff, UVCOM; subtitles in any case).
    label_step: Literal["duration", "clip_length"] = "duration"
    fixed_picks: bool = False  # draw the random clips of the margin loss once, as FlashVTG's code does
    # What makes two rows the same video: the vid, or what is left of it without a trailing "_start_end"
    # (QVHighlights cuts several videos from one source). "layout": the latter for qvhighlights only.
    video_key: Literal["layout", "vid", "source"] = "layout"
    domain: str = ""  # keep the rows of one domain (TVSum, YouTube train one model a domain); "": all
    clip_windows: bool = False  # cut windows to the video; by default a window outside it is refused
    keep_outside: bool = False  # or leave them as they are
    drop_bad_windows: bool = False  # leave out windows without length; by default they are refused
    drop_whole_videos: bool = False  # leave out rows whose first window is as long as the video (BM-DETR)
    # Give each training sample a sentence about another video, drawn every epoch (BM-DETR).
    negative_sentences: bool = False
    max_cut: float = 0.1  # share by which streams of one video may differ in length (2 clips are always fine)
    memory_map: str = ""  # folder for decoded features that do not fit into memory; "": keep them in memory

    def __post_init__(self) -> None:
        if not self.video:
            raise ConfigError("video needs at least one stream")
        if not 0 < self.clip_length_s < float("inf"):
            raise ConfigError(f"clip_length_s must be positive, got {self.clip_length_s}")
        for name, value in (("max_clips", self.max_clips), ("max_words", self.max_words)):
            if not (value > 0 or value == -1):
                raise ConfigError(f"{name} must be positive, or -1 for no limit, got {value}")
        if self.max_windows is not None and not self.max_windows > 0:
            raise ConfigError(f"max_windows must be positive, got {self.max_windows}")
        if not 0 <= self.max_cut <= 1:
            raise ConfigError(f"max_cut must lie in 0..1, got {self.max_cut}")
        if not self.clips >= 0:
            raise ConfigError(f"clips must not be negative, got {self.clips}")
        if self.clips and self.layout in ("qvhighlights", "tvsum", "youtube"):
            raise ConfigError(f"clips = {self.clips}: {self.layout} rates clips, which cannot be averaged")
        if self.audio_apart and self.audio is None:
            raise ConfigError("audio_apart needs a section [data.audio]")
        for stream in (*self.video, *([self.audio] if self.audio else [])):
            if stream.is_word_file:
                raise ConfigError(f"{stream.folder} is a file of word vectors; those are for [data.text]")

    @property
    def contract(self) -> FeatureContract:
        """What a model trained on this data must be given."""
        return FeatureContract(
            video=tuple(stream.contract for stream in self.video),
            text=self.text.contract,
            clip_length_s=self.clip_length_s,
            tef=self.tef,
            audio=None if self.audio is None else self.audio.contract,
            audio_apart=self.audio_apart,
            clips=self.clips,
        )

    @property
    def streams(self) -> tuple[StreamConfig, ...]:
        """What is read of a video: its streams, then audio."""
        return self.video if self.audio is None else (*self.video, self.audio)

    def video_files(self, stream: StreamConfig) -> tuple[str, ...]:
        """Name patterns of a video stream's files."""
        return stream.files or ("{vid}",)

    def text_files(self) -> tuple[str, ...]:
        """Name patterns of the text files."""
        return self.text.files or (_TEXT_FILES[self.layout],)
