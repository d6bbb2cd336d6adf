"""Sound encoder of CLAP (HTS-AT, unfused), through transformers: 512 channels a clip.

A clip's samples (48 kHz mono) are repeated as often as they fit whole into the 10 s that the network takes,
the rest is silence ("repeatpad"); log-mel with the checkpoint's numbers; projected into the space of CLAP's
text ("audio_embeds"). Fused checkpoints, whose own preprocessing draws at random, are refused.

Shapes   T clips   S samples   D channels
Source   Wu et al. 2023, section 3
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from momentkit.core.contract import StreamContract
from momentkit.core.errors import FeatureError
from momentkit.features.checkpoint import load_checkpoint, transformers_for
from momentkit.features.mel import LogMel

DEFAULT_CLAP = "laion/clap-htsat-unfused"


class ClapSoundEncoder:
    """Samples -> audio_embeds, one row a clip; see `momentkit.features.base.SoundEncoder`.

    Args:
        model: a transformers `ClapModel` in eval mode.
        front_end: of its checkpoint.
        longest_s: seconds the network takes.
        name, revision: for the contract.
        clip_length_s: seconds a clip covers.
    """

    def __init__(
        self,
        model: Any,
        front_end: LogMel,
        longest_s: float,
        name: str,
        revision: str,
        clip_length_s: float,
    ) -> None:
        if not 0 < clip_length_s <= longest_s:
            raise FeatureError(f"{name} takes clips of up to {longest_s:g} s, got {clip_length_s:g} s")
        self._model, self._front_end = model, front_end
        self._places = round(longest_s * front_end.sample_rate)
        self.sample_rate = front_end.sample_rate
        self.clip_length_s = clip_length_s
        self.contract = StreamContract(
            encoder=name,
            revision=revision,
            layer="audio_embeds",
            dim=model.config.projection_dim,
            fps=1.0 / clip_length_s,
            crop=f"repeatpad {longest_s:g} s",
        )

    @torch.no_grad()
    def encode_sound(self, samples_TS: NDArray[np.float32]) -> NDArray[np.float32]:
        """(T, S) samples of T clips, mono, in [-1, 1] -> (T, D) float32, raw."""
        rows = []
        for clip_S in samples_TS:
            repeated = np.tile(clip_S, max(1, self._places // len(clip_S)))[: self._places]
            filled = torch.from_numpy(np.pad(repeated, (0, self._places - len(repeated))))
            mel = self._front_end(filled[None].to(self._model.device))[:, None]
            pooled = self._model.audio_model(input_features=mel).pooler_output
            rows.append(self._model.audio_projection(pooled))
        return torch.cat(rows).float().cpu().numpy()


def load_clap(
    source: str | Path = DEFAULT_CLAP,
    *,
    name: str | None = None,
    revision: str = "",
    clip_length_s: float = 2.0,
    device: str = "cpu",
) -> ClapSoundEncoder:
    """Load a CLAP checkpoint's sound encoder; arguments and errors as `momentkit.features.clip.load_clip`."""
    transformers = transformers_for("CLAP")
    loaded = load_checkpoint(
        source,
        family="CLAP",
        kind="clap",
        model_class=transformers.ClapModel,
        name=name,
        revision=revision,
        device=device,
    )
    settings = loaded.settings
    if loaded.model.config.audio_config.enable_fusion or settings.get("truncation") == "fusion":
        raise FeatureError(
            f"{source} is a fused CLAP checkpoint, whose features are drawn at random; "
            f"use an unfused one, such as {DEFAULT_CLAP}"
        )
    front_end = LogMel(
        sample_rate=int(settings.get("sampling_rate", 48000)),
        window=int(settings.get("fft_window_size", 1024)),
        hop=int(settings.get("hop_length", 480)),
        bands=int(settings.get("feature_size", 64)),
        lowest_hz=float(settings.get("frequency_min", 0)),
        highest_hz=float(settings.get("frequency_max", 14000)),
    )
    longest_s = float(settings.get("max_length_s", 10))
    return ClapSoundEncoder(loaded.model, front_end, longest_s, loaded.name, loaded.revision, clip_length_s)
