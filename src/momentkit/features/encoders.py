"""Which encoder a feature contract or a command line asks for."""

from pathlib import Path
from typing import cast

from momentkit.core.contract import FeatureContract, StreamContract
from momentkit.core.errors import FeatureError, FeatureMismatchError
from momentkit.features.base import FrameEncoder, TextEncoder

TINY_PREFIX = "momentkit/tiny"
CLIP_PREFIXES = ("openai/clip", "laion/CLIP")

Encoders = tuple[FrameEncoder, TextEncoder]


def create_encoders(
    contract: FeatureContract, *, directory: Path | None = None, device: str = "cpu"
) -> Encoders:
    """The encoders that weights with this contract need, set up to give exactly such features.

    Args:
        contract: of the weights.
        directory: a local CLIP checkpoint, taken for the CLIP encoder the contract names.
        device: torch device.

    Raises:
        FeatureError: the encoder is not one that can be run here; the message names it.
        FeatureMismatchError: it can, but its features differ from the contract; the message names the field.
        MissingExtraError: it needs an extra.
    """
    if len(contract.video) != 1:
        names = " + ".join(stream.encoder for stream in contract.video)
        raise FeatureError(
            f"these weights need {len(contract.video)} video streams ({names}); films can be encoded for "
            "weights of one stream only: give feature files instead"
        )
    stream, text = contract.video[0], contract.text
    for wanted in (stream, text):
        _require_known(wanted, directory)
    loaded = {
        wanted.encoder: _load(wanted, contract.clip_length_s, directory, device) for wanted in (stream, text)
    }
    frame_encoder, text_encoder = loaded[stream.encoder][0], loaded[text.encoder][1]
    frame_encoder.contract = _agreed(stream, frame_encoder.contract, "video")
    text_encoder.contract = _agreed(text, text_encoder.contract, "text")
    if frame_encoder.clip_length_s != contract.clip_length_s:
        raise FeatureMismatchError(
            f"these weights take clips of {contract.clip_length_s:g} s, {stream.encoder} gives clips of "
            f"{frame_encoder.clip_length_s:g} s"
        )
    return frame_encoder, text_encoder


def encoder_by_name(name: str | Path, *, clip_length_s: float = 1.0, device: str = "cpu") -> Encoders:
    """The encoders a command line names.

    Args:
        name: "tiny" (bundled), "clip" (OpenAI's ViT-B/32 from the hub), a CLIP hub id, or the directory of a
            CLIP checkpoint.
        clip_length_s: seconds a clip covers, for CLIP; tiny has its own.
        device: torch device.

    Raises:
        FeatureError: no such encoder.
        MissingExtraError: it needs an extra.
    """
    if str(name) == "tiny":
        return _tiny()
    from momentkit.features.clip import DEFAULT_CLIP, load_clip

    if str(name) == "clip":
        return load_clip(DEFAULT_CLIP, clip_length_s=clip_length_s, device=device)
    if Path(name).is_dir() or str(name).startswith(CLIP_PREFIXES):
        return load_clip(name, clip_length_s=clip_length_s, device=device)
    raise FeatureError(f"no encoder {str(name)!r}; there are tiny, clip, and directories of CLIP checkpoints")


def contract_of(frames: FrameEncoder, text: TextEncoder, *, tef: bool = True) -> FeatureContract:
    """The contract of features that these two encoders give."""
    return FeatureContract(
        video=(frames.contract,), text=text.contract, clip_length_s=frames.clip_length_s, tef=tef
    )


def _require_known(wanted: StreamContract, directory: Path | None) -> None:
    known = (TINY_PREFIX, *CLIP_PREFIXES)
    if wanted.encoder.startswith(known) or (directory is not None and directory.name == wanted.encoder):
        return
    raise FeatureError(
        f"these weights need features of {wanted.encoder!r}, an encoder that is not available here; there "
        f"are {', '.join(prefix + '*' for prefix in known)} and directories of CLIP checkpoints; give "
        "feature files, or use other weights"
    )


def _load(wanted: StreamContract, clip_length_s: float, directory: Path | None, device: str) -> Encoders:
    if wanted.encoder.startswith(TINY_PREFIX):
        return _tiny()
    from momentkit.features.clip import load_clip

    if directory is None:
        return load_clip(wanted.encoder, revision=wanted.revision, clip_length_s=clip_length_s, device=device)
    # A copy on disk does not say which model it is a copy of: the user's word, checked by its widths below.
    return load_clip(directory, name=wanted.encoder, clip_length_s=clip_length_s, device=device)


def _tiny() -> Encoders:
    from momentkit.features.tiny import TinyFrameEncoder, TinyTextEncoder

    return cast(FrameEncoder, TinyFrameEncoder.bundled()), TinyTextEncoder.bundled()


def _agreed(wanted: StreamContract, seen: StreamContract, what: str) -> StreamContract:
    """The wanted contract, if the encoder can give such features.

    A revision the weights do not state fits any; the precision features were stored in is reproduced by
    rounding, see `extract.finish_rows`; so is the normalisation.
    """
    free = {"dtype": wanted.dtype, "normalisation": wanted.normalisation}
    if not wanted.revision:
        free["revision"] = ""
    adapted = seen.model_copy(update=free)
    for field, value in wanted.model_dump().items():
        got = getattr(adapted, field)
        if got != value:
            raise FeatureMismatchError(
                f"the encoder does not fit the weights: its {what} {field} is {got!r}, the weights were "
                f"trained with {value!r}; use that encoder or other weights"
            )
    return wanted
