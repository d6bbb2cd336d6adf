"""The published data sets: what their annotation files hold, where they and their features come from.

Counts were made from the public files; what papers print beside them differs in places (`known`).
Nothing is downloaded: the annotations and features are for non-commercial research for the most part, and
each has its own terms.
"""

from dataclasses import dataclass

from momentkit.core.errors import ConfigError
from momentkit.data.options import Layout
from momentkit.data.row import WindowRules


@dataclass(frozen=True)
class Part:
    """One annotation file.

    Attributes:
        name: of the split, and after a comma which form of it this is; one form is enough.
        files: names it is found under, with or without `.gz`; the first that is there is read.
        rows: rows as the file holds them.
        kept: rows that are left when those without a moment inside their video are dropped.
        videos: different ones among the rows that are left.
        windows: moments of the rows that are left; 0 where the file has none.
        qids: different ones; 0: one a row.
    """

    name: str
    files: tuple[str, ...]
    rows: int
    videos: int
    windows: int
    kept: int = 0
    qids: int = 0

    @property
    def split(self) -> str:
        """The name without the form."""
        return self.name.partition(",")[0]


AS_THEY_ARE = WindowRules()


@dataclass(frozen=True, kw_only=True)
class Published:
    """One data set.

    Attributes:
        title: as papers write it.
        layout: of its rows.
        parts: its annotation files.
        annotations: where they come from: repository and path.
        features: features in use: what they are, where they come from.
        licence: as stated at the source.
        known: quirks of the files and what is done about them.
        rules: how windows are read for the counts.
        lengths: names of the table of video lengths, where a form needs it.
    """

    title: str
    layout: Layout
    parts: tuple[Part, ...]
    annotations: tuple[str, ...]
    features: tuple[str, ...]
    licence: str
    known: tuple[str, ...] = ()
    rules: WindowRules = AS_THEY_ARE
    lengths: tuple[str, ...] = ()


def find_published(name: str) -> Published:
    """A data set by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PUBLISHED:
        raise ConfigError(f"no data set {name!r}; there are {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


_CUT = WindowRules(clip_windows=True, drop_bad_windows=True)
_CHARADES_LICENCE = "repository MIT; Charades itself is for non-commercial use by its owners"
_CHARADES_FEATURES = (
    "SlowFast R50 2304 + CLIP ViT-B/32 512, one row a second, slowfast_features/<vid>.npz, clip_features/, "
    "clip_text_features/qid<qid>.npz: links in the README of wjun0830/CGDETR and line/lighthouse",
    "VGG fc7 4096, a row each 1/6 s, rgb_features/<vid>.npy: TencentARC/UMT; or one HDF5: microsoft/VideoX",
    "C3D fc6 4096 at 1 s and I3D 1024 at 0.64 s, one HDF5 each: microsoft/VideoX (MS-2D-TAN)",
    "InternVideo2-6B 768 <vid>.pt and LLaMA words 4096 qid<qid>.pt: Zhuo-Cao/FlashVTG",
    "words: glove.6B.300d.txt, Stanford NLP group",
)

PUBLISHED: dict[str, Published] = {
    "qvhighlights": Published(
        title="QVHighlights",
        layout="qvhighlights",
        parts=(
            Part("train", ("highlight_train_release.jsonl",), 7218, 7100, 12803),
            Part("val", ("highlight_val_release.jsonl",), 1550, 1519, 2803),
            Part("test", ("highlight_test_release.jsonl",), 1542, 1529, 0),
            Part("test, with labels", ("highlight_test_with_gt.jsonl",), 1542, 1529, 2761),
        ),
        annotations=("jayleicn/moment_detr: data/ (the test labels too, since the server was shut down)",),
        features=(
            "SlowFast R50 2304 + CLIP ViT-B/32 512 at 2 s and CLIP words 512: README of jayleicn/moment_detr",
            "the same and PANN audio 2048: TencentARC/UMT; the released audio weights of QD-DETR need these",
            "InternVideo2-6B 768 + LLaMA 4096: Zhuo-Cao/FlashVTG (two training rows, qid 611 and 1265, lack)",
        ),
        licence="annotations CC BY-NC-SA 4.0",
        known=(
            "durations below 150 s: 213 / 39 / 47 videos, though every id spans 150 s; `duration` is trusted",
            "feature files may be a row shorter or longer than duration / 2; cut to the shortest, counted",
            "one test row with labels has no rating above 0",
            "DiffusionVMR prints 1,512 test rows; the file has 1,542",
        ),
    ),
    "charades": Published(
        title="Charades-STA",
        layout="charades",
        parts=(
            Part("train", ("charades_sta_train_tvr_format.jsonl",), 12404, 5336, 12404),
            Part(
                "test",
                ("charades_sta_test_tvr_format.jsonl", "charades_sta_val_tvr_format.jsonl"),
                3720, 1334, 3720,
            ),
            Part("train, text form", ("charades_sta_train.txt",), 12408, 5336, 12404, kept=12404),
            Part("test, text form", ("charades_sta_test.txt",), 3720, 1334, 3720),
        ),
        annotations=(
            "charades_sta_*.txt and Charades_v1_*.csv: microsoft/VideoX: 2D-TAN/data/Charades-STA/",
            "*_tvr_format.jsonl: IMCCretrieval/MomentDiff, FlashVTG, CG-DETR, TR-DETR, LD-DETR, lighthouse",
        ),
        features=_CHARADES_FEATURES,
        licence=_CHARADES_LICENCE,
        known=(
            "there is no validation split: every published figure was selected on the test rows",
            "text form: 1,805 / 562 ends are cut to the video, 4 training rows without length are dropped",
            "no test moment is longer than 30 s: the range \"long\" is empty",
        ),
        lengths=("video_lengths.csv", "Charades_v1_train.csv"),
    ),
    "charades-len": Published(
        title="Charades-STA-Len",
        layout="charades",
        parts=(
            Part("train", ("train_len_80.jsonl",), 11633, 0, 11633, qids=9307),
            Part("test", ("test_len_80.jsonl",), 985, 0, 985, qids=788),
        ),
        annotations=("IMCCretrieval/MomentDiff: data/charades_len/; or `momentkit data split --rule len`",),
        features=_CHARADES_FEATURES,
        licence=_CHARADES_LICENCE,
        known=("qids repeat in a file: rows are keyed by position, texts must be made from the sentence",),
    ),
    "charades-mom": Published(
        title="Charades-STA-Mom",
        layout="charades",
        parts=(
            Part("train", ("train_mom_80.jsonl",), 6662, 0, 6662, qids=5330),
            Part("test", ("test_mom_80.jsonl",), 1297, 0, 1297, qids=1038),
        ),
        annotations=("IMCCretrieval/MomentDiff: data/charades_mom/; or `momentkit data split --rule mom`",),
        features=_CHARADES_FEATURES,
        licence=_CHARADES_LICENCE,
        known=("qids repeat in a file: rows are keyed by position, texts must be made from the sentence",),
    ),
    "charades-cd": Published(
        title="Charades-CD",
        layout="charades",
        parts=(
            Part("train", ("charades_train_momentdiff.jsonl",), 11071, 0, 11071),
            Part("test iid", ("charades_test_iid_momentdiff.jsonl",), 823, 0, 823),
            Part("test ood", ("charades_test_ood_momentdiff.jsonl",), 3375, 0, 3372, kept=3372),
        ),
        annotations=("IMCCretrieval/MomentDiff: data/charades_cd/",),
        features=_CHARADES_FEATURES,
        licence=_CHARADES_LICENCE,
        known=(
            "1,652 / 151 / 348 ends lie behind the video: set clip_windows",
            "3 test ood rows begin behind their video: set drop_bad_windows",
            "no sentence has its full stop",
        ),
        rules=_CUT,
    ),
    "tacos": Published(
        title="TACoS",
        layout="tacos",
        parts=(
            Part("train", ("train.jsonl",), 9790, 75, 9790),
            Part("val", ("val.jsonl", "evl.jsonl"), 4436, 27, 4436),
            Part("test", ("test.jsonl",), 4001, 25, 4001),
            Part("train, frames", ("2dtan_train.json", "train.json"), 9790, 75, 9790),
            Part("val, frames", ("2dtan_val.json", "val.json"), 4436, 27, 4436),
            Part("test, frames", ("2dtan_test.json", "test.json"), 4001, 25, 4001),
        ),
        annotations=(
            "*.json, moments in frames: microsoft/VideoX: 2D-TAN/data/TACoS/",
            "*.jsonl: Zhuo-Cao/FlashVTG: data/tacos/ (CG-DETR, LD-DETR, lighthouse)",
        ),
        features=(
            "C3D 4096, <vid>.npz key `arr` (MomentDiff), or one HDF5: microsoft/VideoX",
            "SlowFast R50 2304 + CLIP ViT-B/32 512 at 2 s, words <qid>.npz: README of wjun0830/CGDETR",
            "words: glove.6B.300d.txt, Stanford NLP group",
        ),
        licence="repositories MIT; no separate statement for the annotations",
        known=(
            "in the frames form 43 / 0 / 5 ends lie behind the video by up to 0.51 s and are cut",
            "DiffusionVMR prints 18,818 rows, of the older TALL release; the public files have 18,227",
            "FlashVTG and LD-DETR select on the test split",
        ),
    ),
    "didemo": Published(
        title="DiDeMo",
        layout="didemo",
        parts=(
            Part("train", ("train_data.json",), 33005, 0, 33005),
            Part("val", ("val_data.json",), 4180, 1094, 4180),
            Part("test", ("test_data.json",), 4021, 1037, 4021),
        ),
        annotations=("LisaAnne/LocalizingMoments: data/",),
        features=("VGG fc7 4096 (VLG-Net)", "words: glove.6B.300d.txt, Stanford NLP group"),
        licence="CC BY-NC-SA 4.0 according to data/README",
        known=(
            "each sentence has the chunks of 4 annotators or more; the pair they agree on is the moment",
            "the count of the training rows is the literature's, not made from the file",
        ),
    ),
    "activitynet": Published(
        title="ActivityNet Captions",
        layout="activitynet",
        parts=(
            Part("train", ("train.json",), 37421, 10009, 37417, kept=37417),
            Part("val_1", ("val.json", "val_1.json"), 17505, 4917, 17505),
            Part("val_2", ("test.json", "val_2.json"), 17031, 4885, 17031),
        ),
        annotations=("microsoft/VideoX: 2D-TAN/data/ActivityNet/",),
        features=(
            "C3D 500, sub_activitynet_v1-3.c3d.hdf5, each video a group with c3d_features: activity-net.org",
            "words: glove.6B.300d.txt, Stanford NLP group",
        ),
        licence="repository MIT; no separate statement for the annotations",
        known=(
            "261 / 134 / 111 ends lie behind the video and are cut; 4 training rows have no length",
            "val_1 and val_2 describe largely the same videos; 2D-TAN's line selects on val_1, reports val_2",
        ),
    ),
    "tvsum": Published(
        title="TVSum",
        layout="tvsum",
        parts=(
            Part("train", ("tvsum_train.jsonl",), 40, 40, 0),
            Part("val", ("tvsum_val.jsonl",), 10, 10, 0),
        ),
        annotations=("wjun0830/CGDETR: data/tvsum/",),
        features=(
            "I3D 2048 (rgb, flow), PANN audio 2048, CLIP words 512, not normalised: TencentARC/UMT",
            "SlowFast R50 2304 + CLIP ViT-B/32 512: showlab/UniVTG",
        ),
        licence="repository MIT; none stated for the annotations",
        known=(
            "`duration` holds the number of clips; it is replaced by seconds",
            "the _sfc variants hold one sum a clip, from which the metric cannot be computed: refused",
            "ten domains of 4 training and 1 validation video; one model a domain, the mean is reported",
        ),
    ),
    "youtube": Published(
        title="YouTube Highlights",
        layout="youtube",
        parts=(
            Part("train", ("youtube_train.jsonl",), 233, 233, 0),
            Part("val", ("youtube_valid.jsonl",), 152, 152, 0),
        ),
        annotations=("wjun0830/CGDETR: data/youtube_uni/; the first form is TencentARC/UMT's",),
        features=(
            "SlowFast R50 2304 + CLIP ViT-B/32 512, CLIP words 512: showlab/UniVTG",
            "I3D 2048, PANN audio 2048: TencentARC/UMT (157 validation videos, other domain values)",
        ),
        licence="repository MIT; UMT BSD-style (Tencent); none stated for the annotations",
        known=(
            "clips overlap by half, so labels and features must have the same length: refused otherwise",
            "DiffusionVMR prints 433 videos; the annotation file has 422, these files 385",
        ),
    ),
}  # fmt: skip
