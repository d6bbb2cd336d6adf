"""Image and text encoder of the CLIP family, through transformers, from the hub or a local directory.

Image: one frame a clip, at its start; shorter side to 224 (bicubic), centre crop, mean and deviation of the
checkpoint; pooled and projected ("image_embeds"). Text: states of the valid tokens, start and end included,
after the last layer norm, without the projection ("last_hidden_state"), as the published text features are.

Shapes   N frames   H, W pixels   S side of the crop   D image channels   L tokens   E text channels
Source   Radford et al. 2021; sampling and preprocessing as the extractors of Moment-DETR and UniVTG do them
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from momentkit.core.contract import StreamContract
from momentkit.core.errors import FeatureError, MissingExtraError, QueryError
from momentkit.core.files import read_bytes
from momentkit.core.types import TextFeatures

if TYPE_CHECKING:
    from PIL.Image import Image

DEFAULT_CLIP = "openai/clip-vit-base-patch32"
_MAX_JSON_BYTES = 64 * 1024**2
_MISSING = "the CLIP encoder needs {}, which is not installed: pip install 'momentkit[encoders]'"


@dataclass(frozen=True, kw_only=True)
class ClipPreprocess:
    """How a frame becomes the image encoder's input; the defaults are OpenAI's."""

    shorter_side: int = 224  # pixels after resizing
    crop: int = 224  # side of the centre square
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # of RGB on [0, 1]
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self) -> None:
        if not 0 < self.crop <= self.shorter_side:
            raise FeatureError(f"cannot cut {self.crop} pixels from a side of {self.shorter_side}")

    @property
    def name(self) -> str:
        """For the contract."""
        return f"centre {self.crop}"

    def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Frames (H, W, 3) uint8 RGB -> (N, 3, S, S) float32."""
        squares = np.stack([self._square(frame) for frame in frames]).astype(np.float32) / np.float32(255)
        normal = (squares - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(normal.transpose(0, 3, 1, 2), dtype=np.float32)

    def _square(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        image = _image(frame)
        width, height = image.size
        shorter = min(width, height)
        size = (self.shorter_side * width // shorter, self.shorter_side * height // shorter)
        resized = image.resize(size, resample=3)  # 3: bicubic
        left, top = (size[0] - self.crop) // 2, (size[1] - self.crop) // 2
        return np.asarray(resized.crop((left, top, left + self.crop, top + self.crop)))


def _image(frame: NDArray[np.uint8]) -> "Image":
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError(_MISSING.format("pillow")) from error
    return Image.fromarray(frame)


class ClipFrameEncoder:
    """Frames -> image_embeds, one row a frame; see `momentkit.features.base.FrameEncoder`.

    Args:
        model: a transformers `CLIPModel` in eval mode.
        preprocess: of its checkpoint.
        name, revision: for the contract.
        clip_length_s: 1 for one frame a second, 2 for one every two.
    """

    frame_offsets_s: tuple[float, ...] = (0.0,)
    frame_size: tuple[int, int] | None = None  # the crop depends on the film's aspect

    def __init__(
        self, model: Any, preprocess: ClipPreprocess, name: str, revision: str, clip_length_s: float
    ) -> None:
        self._model, self._preprocess = model, preprocess
        self.clip_length_s = clip_length_s
        self.contract = StreamContract(
            encoder=name,
            revision=revision,
            layer="image_embeds",
            dim=model.config.projection_dim,
            fps=1.0 / clip_length_s,
            crop=preprocess.name,
        )

    @torch.no_grad()
    def encode_frames(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Frames (H, W, 3) uint8 RGB -> (N, D) float32, raw."""
        pixels = torch.from_numpy(self._preprocess(frames)).to(self._model.device)
        pooled = self._model.vision_model(pixel_values=pixels).pooler_output
        return self._model.visual_projection(pooled).float().cpu().numpy()


class ClipTextEncoder:
    """Sentences -> last_hidden_state; see `momentkit.features.base.TextEncoder`.

    Args:
        model: a transformers `CLIPModel` in eval mode.
        tokenizer: of its checkpoint.
        name, revision: for the contract.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, revision: str) -> None:
        self._model, self._tokenizer = model, tokenizer
        config = model.config.text_config
        self._max_tokens = int(config.max_position_embeddings)
        self.contract = StreamContract(
            encoder=name, revision=revision, layer="last_hidden_state", dim=config.hidden_size
        )

    @torch.no_grad()
    def encode_text(self, sentences: Sequence[str]) -> list[TextFeatures]:
        """One (L, E) float32 array a sentence, raw; L counts the start and the end token.

        Raises:
            QueryError: an empty sentence, or one of more tokens than the encoder has places for.
        """
        return [TextFeatures(words_LE=self._states(sentence)) for sentence in sentences]

    def _states(self, sentence: str) -> NDArray[np.float32]:
        if not sentence.strip():
            raise QueryError("the sentence is empty; say what to look for")
        tokens = self._tokenizer(sentence)["input_ids"]
        if len(tokens) > self._max_tokens:
            raise QueryError(
                f"the sentence has {len(tokens) - 2} word pieces, the encoder {self.contract.encoder} takes "
                f"{self._max_tokens - 2}; say it shorter: {sentence[:60]!r}"
            )
        ids_BL = torch.tensor([tokens], device=self._model.device)
        mask_BL = torch.ones_like(ids_BL)
        states = self._model.text_model(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        return states[0].float().cpu().numpy()


def load_clip(
    source: str | Path = DEFAULT_CLIP,
    *,
    name: str | None = None,
    revision: str = "",
    clip_length_s: float = 2.0,
    device: str = "cpu",
) -> tuple[ClipFrameEncoder, ClipTextEncoder]:
    """Load both encoders of a CLIP checkpoint; only safetensors are read, nothing is unpickled.

    Args:
        source: hub id, or a directory as `save_pretrained` writes it.
        name: for the contract; None = the hub id, or the directory's name.
        revision: hub commit or branch; "" = the newest. What was loaded stands in the contracts: the commit,
            or for a directory the checksum of its weights.
        clip_length_s: seconds a clip covers; one frame is encoded for each.
        device: torch device.

    Raises:
        MissingExtraError: transformers is not installed.
        FeatureError: there is no CLIP checkpoint, or it cannot be fetched.
    """
    if not clip_length_s > 0:
        raise FeatureError(f"the clip length must be positive, got {clip_length_s}")
    try:
        from transformers import CLIPModel, CLIPTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtraError(_MISSING.format("transformers")) from error
    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # a pipe or a log gets no bars
    folder = Path(source) if Path(source).is_dir() else None
    where = str(source)
    if folder is not None:
        _require_clip(folder)
    try:
        commit = revision or "main"  # a directory has no commits: there it is passed over
        model: Any = CLIPModel.from_pretrained(
            where, use_safetensors=True, dtype=torch.float32, revision=commit
        )
        tokenizer = CLIPTokenizer.from_pretrained(where, revision=commit)
        settings = _preprocess_file(where, folder, commit)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise FeatureError(
            f"cannot load the CLIP encoder {where}: {first_line}; give the directory of a CLIP checkpoint"
        ) from error
    model = model.to(device).eval().requires_grad_(False)
    preprocess = _preprocess(settings, model.config.vision_config.image_size, where)
    found = _folder_revision(folder) if folder else str(getattr(model.config, "_commit_hash", "") or revision)
    label = name or (folder.resolve().name if folder else where)
    return (
        ClipFrameEncoder(model, preprocess, label, found, clip_length_s),
        ClipTextEncoder(model, tokenizer, label, found),
    )


def is_clip_folder(folder: Path) -> bool:
    """Whether a directory says that it holds a CLIP checkpoint."""
    config = folder / "config.json"
    return config.is_file() and _json(config).get("model_type") == "clip"


def _require_clip(folder: Path) -> None:
    if not is_clip_folder(folder):
        raise FeatureError(
            f"{folder} holds no CLIP checkpoint: config.json with model_type 'clip', model.safetensors and "
            "the tokenizer's files are needed"
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(path, _MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise FeatureError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise FeatureError(f"{path} must hold an object {{...}}, got {type(content).__name__}")
    return content


def _folder_revision(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"


def _preprocess_file(where: str, folder: Path | None, revision: str) -> dict[str, Any]:
    """The checkpoint's preprocessor settings; empty where it has none."""
    from transformers.utils import cached_file

    for name, key in (("preprocessor_config.json", ""), ("processor_config.json", "image_processor")):
        found: str | None
        if folder is not None:
            found = str(folder / name) if (folder / name).is_file() else None
        else:
            found = cached_file(where, name, revision=revision, _raise_exceptions_for_missing_entries=False)
        if found is not None:
            content = _json(Path(found))
            return content.get(key, {}) if key else content
    return {}


def _preprocess(settings: dict[str, Any], image_size: int, where: str) -> ClipPreprocess:
    def side(value: Any, *keys: str) -> int:
        if isinstance(value, dict):
            value = next((value[key] for key in keys if key in value), image_size)
        return int(value)

    default = ClipPreprocess(shorter_side=image_size, crop=image_size)
    if settings.get("resample", 3) != 3:
        raise FeatureError(f"{where}: resample {settings['resample']} is not bicubic (3), which CLIP uses")
    red, green, blue = settings.get("image_mean") or default.mean
    red_std, green_std, blue_std = settings.get("image_std") or default.std
    preprocess = ClipPreprocess(
        shorter_side=side(settings.get("size") or image_size, "shortest_edge", "height"),
        crop=side(settings.get("crop_size") or image_size, "height"),
        mean=(red, green, blue),
        std=(red_std, green_std, blue_std),
    )
    if preprocess.crop != image_size:
        raise FeatureError(f"{where}: frames are cut to {preprocess.crop}, the network takes {image_size}")
    return preprocess
