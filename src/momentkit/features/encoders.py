"""Which encoder a feature contract or a command line asks for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from momentkit.core.contract import FeatureContract, StreamContract
from momentkit.core.errors import FeatureError, FeatureMismatchError
from momentkit.features.base import FrameEncoder, SoundEncoder, TextEncoder

TINY_PREFIX = "momentkit/tiny"
CLIP_PREFIXES = ("openai/clip", "laion/CLIP")
# What the names of hub checkpoints of a family begin with.
_FAMILIES = {
    "clip": CLIP_PREFIXES,
    "siglip": ("google/siglip",),
    "clap": ("laion/clap",),
    "minilm": ("sentence-transformers/",),
    "slowfast": ("facebookresearch/slowfast",),
    "glove": ("glove.",),
}
_FROM_A_FILE = ("slowfast", "glove")  # families whose weights are one file, which no name leads to
_KINDS = {"clip": "clip", "siglip": "siglip", "clap": "clap", "bert": "minilm"}  # model_type -> family
_ALIASES = {"siglip2": "siglip"}

Encoders = tuple[tuple[FrameEncoder, ...], TextEncoder]
"""Of a model's video streams, in their order, and of its text."""


@dataclass(frozen=True, kw_only=True)
class EncoderSet:
    """What one checkpoint can encode; None where it cannot."""

    frames: FrameEncoder | None = None
    sound: SoundEncoder | None = None
    text: TextEncoder | None = None


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """How an encoder is loaded and used."""

    source: str | Path | None = None  # directory, file or hub id; None: the family's default on the hub
    name: str | None = None  # for the contract; None: the source's
    revision: str = ""  # hub commit; "": the newest
    clip_length_s: float = 2.0  # seconds a clip covers; tiny has its own
    device: str = "cpu"


def load_encoders(name: str | Path, options: EncoderOptions) -> EncoderSet:
    """The encoders of a checkpoint.

    Args:
        name: one of `ENCODERS`, a hub id of a known family, or the directory of a checkpoint.
        options: see there; a directory or hub id given as the name is the source.

    Raises:
        FeatureError: no such encoder, or it needs a source.
        WeightsError: its weights file is damaged or of something else.
        MissingExtraError: it needs an extra.
    """
    asked = _ALIASES.get(str(name), str(name))
    if asked not in ENCODERS and options.source is None:
        options = replace(options, source=name)
        asked = family_of(str(name), Path(name))
    if asked not in ENCODERS:
        raise FeatureError(
            f"no encoder {str(name)!r}; there are {', '.join(ENCODERS)}, and directories of CLIP, SigLIP, "
            "CLAP and MiniLM checkpoints"
        )
    return ENCODERS[asked](options)


def family_of(encoder: str, directory: Path | None = None) -> str:
    """The family of a checkpoint, by its name on the hub or by what a directory says; "" if neither tells."""
    from momentkit.features.checkpoint import kind_of

    for family, prefixes in _FAMILIES.items():
        if encoder.startswith(prefixes):
            return family
    if directory is None or not directory.is_dir():
        return ""
    # A directory that says nothing is left to CLIP's loader, which says what is missing.
    return _KINDS.get(kind_of(directory), "clip")


def _tiny(options: EncoderOptions) -> EncoderSet:
    from momentkit.features.tiny import TinyFrameEncoder, TinyTextEncoder

    return EncoderSet(frames=cast(FrameEncoder, TinyFrameEncoder.bundled()), text=TinyTextEncoder.bundled())


def _clip(options: EncoderOptions) -> EncoderSet:
    from momentkit.features.clip import DEFAULT_CLIP, load_clip

    frames, text = load_clip(
        options.source or DEFAULT_CLIP,
        name=options.name,
        revision=options.revision,
        clip_length_s=options.clip_length_s,
        device=options.device,
    )
    return EncoderSet(frames=frames, text=text)


def _siglip(options: EncoderOptions) -> EncoderSet:
    from momentkit.features.siglip import DEFAULT_SIGLIP, load_siglip

    frames, text = load_siglip(
        options.source or DEFAULT_SIGLIP,
        name=options.name,
        revision=options.revision,
        clip_length_s=options.clip_length_s,
        device=options.device,
    )
    return EncoderSet(frames=frames, text=text)


def _clap(options: EncoderOptions) -> EncoderSet:
    from momentkit.features.clap import DEFAULT_CLAP, load_clap

    sound = load_clap(
        options.source or DEFAULT_CLAP,
        name=options.name,
        revision=options.revision,
        clip_length_s=options.clip_length_s,
        device=options.device,
    )
    return EncoderSet(sound=sound)


def _minilm(options: EncoderOptions) -> EncoderSet:
    from momentkit.features.minilm import DEFAULT_MINILM, load_minilm

    text = load_minilm(
        options.source or DEFAULT_MINILM,
        name=options.name,
        revision=options.revision,
        device=options.device,
    )
    return EncoderSet(text=text)


def _slowfast(options: EncoderOptions) -> EncoderSet:
    from momentkit.features.slowfast import SlowFastEncoder

    path = _file(options, "slowfast", "SLOWFAST_8x8_R50.pkl")
    return EncoderSet(
        frames=SlowFastEncoder.read(path, clip_length_s=options.clip_length_s, device=options.device)
    )


def _cnn14(options: EncoderOptions) -> EncoderSet:
    from momentkit.features.cnn14 import Cnn14Encoder

    path = _file(options, "cnn14", "Cnn14_mAP=0.431.pth")
    return EncoderSet(
        sound=Cnn14Encoder.read(path, clip_length_s=options.clip_length_s, device=options.device)
    )


def _glove(options: EncoderOptions) -> EncoderSet:
    from momentkit.features.glove import GloveTextEncoder

    if options.source is None:
        raise FeatureError("the encoder glove needs a file of word vectors, such as glove.6B.300d.txt")
    return EncoderSet(text=GloveTextEncoder(options.source))


def _file(options: EncoderOptions, name: str, published: str) -> Path:
    if options.source is None:
        raise FeatureError(
            f"the encoder {name} needs its weights: fetch {published}, then "
            f"`momentkit features import {published} --encoder {name} -o {name}.safetensors`"
        )
    return Path(options.source)


ENCODERS: dict[str, Callable[[EncoderOptions], EncoderSet]] = {
    "tiny": _tiny,
    "clip": _clip,
    "siglip": _siglip,
    "slowfast": _slowfast,
    "clap": _clap,
    "cnn14": _cnn14,
    "minilm": _minilm,
    "glove": _glove,
}


def encoder_by_name(
    name: str | Path, *, clip_length_s: float = 1.0, device: str = "cpu"
) -> tuple[FrameEncoder, TextEncoder]:
    """Encoders of frames and of text that a command line names.

    Args:
        name: "tiny" (bundled), "clip", "siglip2", a hub id, or the directory of a checkpoint.
        clip_length_s: seconds a clip covers; tiny has its own.
        device: torch device.

    Raises:
        FeatureError: no such encoder, or not one of frames and text both.
        MissingExtraError: it needs an extra.
    """
    found = load_encoders(name, EncoderOptions(clip_length_s=clip_length_s, device=device))
    if found.frames is None or found.text is None:
        raise FeatureError(
            f"the encoder {str(name)!r} does not encode frames and sentences both, as clip does"
        )
    return found.frames, found.text


def create_encoders(
    contract: FeatureContract, *, sources: Sequence[Path] = (), device: str = "cpu"
) -> Encoders:
    """The encoders that weights with this contract need, set up to give exactly such features.

    Args:
        contract: of the weights.
        sources: local checkpoints, each taken for the encoders of its family that the contract names:
            directories, a SlowFast `.safetensors`, a text file of word vectors.
        device: torch device.

    Returns:
        One encoder of frames for each video stream, in the contract's order, and that of sentences.

    Raises:
        FeatureError: an encoder is not one that can be run here, or a source is of none that is needed; the
            message names it.
        FeatureMismatchError: it can, but its features differ from the contract; the message names the field.
        MissingExtraError: it needs an extra.
    """
    wanted = {stream.encoder: stream for stream in contract.video}
    wanted.setdefault(contract.text.encoder, contract.text)  # one encoder of both has the stream's revision
    families = {name: _known_family(stream, sources) for name, stream in wanted.items()}
    local = {_family_of_source(source): source for source in sources}
    if len(local) < len(sources):
        raise FeatureError(f"two encoders of one family are given: {', '.join(map(str, sources))}")
    for family, source in local.items():
        if family not in families.values():
            raise FeatureMismatchError(
                f"{source} is an encoder ({family}) that these weights do not use; they need "
                f"{' and '.join(families)}"
            )
    loaded = {
        name: _load(stream, families[name], contract.clip_length_s, local.get(families[name]), device)
        for name, stream in wanted.items()
    }
    frames = tuple(
        _frames_for(stream, loaded[stream.encoder].frames, contract.clip_length_s)
        for stream in contract.video
    )
    text = loaded[contract.text.encoder].text
    if text is None:
        raise _cannot(contract.text, "sentences")
    text.contract = _agreed(contract.text, text.contract, "text")
    return frames, text


def _frames_for(stream: StreamContract, encoder: FrameEncoder | None, clip_length_s: float) -> FrameEncoder:
    if encoder is None:
        raise _cannot(stream, "frames")
    encoder.contract = _agreed(stream, encoder.contract, "video")
    if encoder.clip_length_s != clip_length_s:
        raise FeatureMismatchError(
            f"these weights take clips of {clip_length_s:g} s, {stream.encoder} gives clips of "
            f"{encoder.clip_length_s:g} s"
        )
    return encoder


def _cannot(stream: StreamContract, what: str) -> FeatureError:
    return FeatureError(
        f"these weights need {what} encoded by {stream.encoder!r}, which does not encode {what}"
    )


def contract_of(frames: Sequence[FrameEncoder], text: TextEncoder, *, tef: bool = True) -> FeatureContract:
    """The contract of features that these encoders give, the frames' streams side by side."""
    return FeatureContract(
        video=tuple(encoder.contract for encoder in frames),
        text=text.contract,
        clip_length_s=frames[0].clip_length_s,
        tef=tef,
    )


def _family_of_source(source: Path) -> str:
    """The family of a checkpoint on disk; its loader checks that it is one."""
    if source.is_dir():
        return family_of("", source)
    return "slowfast" if source.suffix == ".safetensors" else "glove"


def _known_family(wanted: StreamContract, sources: Sequence[Path]) -> str:
    if wanted.encoder.startswith(TINY_PREFIX):
        return "tiny"
    named = next((source for source in sources if source.name == wanted.encoder), None)
    if family := family_of(wanted.encoder, named):
        return family
    known = (TINY_PREFIX, *(prefix for prefixes in _FAMILIES.values() for prefix in prefixes))
    raise FeatureError(
        f"these weights need features of {wanted.encoder!r}, an encoder that is not available here; there "
        f"are {', '.join(prefix + '*' for prefix in known)} and directories of checkpoints; give "
        "feature files, or use other weights"
    )


def _load(
    wanted: StreamContract, family: str, clip_length_s: float, source: Path | None, device: str
) -> EncoderSet:
    # A copy on disk does not say which model it is a copy of: the user's word, checked by its widths and,
    # where the weights state it, by its checksum.
    from momentkit.features.checkpoint import commit_of

    if source is None and family in _FROM_A_FILE:
        raise FeatureError(
            f"these weights need features of {wanted.encoder!r}: give its file as an encoder too "
            f"(slowfast: a .safetensors of `momentkit features import`; glove: a text file of word vectors)"
        )
    options = EncoderOptions(
        source=source or wanted.encoder,
        name=wanted.encoder,
        revision=commit_of(wanted.revision),
        clip_length_s=clip_length_s,
        device=device,
    )
    return ENCODERS[family](options)


def _agreed(wanted: StreamContract, seen: StreamContract, what: str) -> StreamContract:
    """The wanted contract, if the encoder can give such features.

    A revision the weights do not state fits any; the precision features were stored in is reproduced by
    rounding, see `extract.finish_rows`; so is the normalisation.
    """
    from momentkit.features.checkpoint import same_weights

    free = {"dtype": wanted.dtype, "normalisation": wanted.normalisation}
    if same_weights(wanted.revision, seen.revision):
        free["revision"] = wanted.revision
    adapted = seen.model_copy(update=free)
    for field, value in wanted.model_dump().items():
        got = getattr(adapted, field)
        if got != value:
            raise FeatureMismatchError(
                f"the encoder does not fit the weights: its {what} {field} is {got!r}, the weights were "
                f"trained with {value!r}; use that encoder or other weights"
            )
    return wanted
