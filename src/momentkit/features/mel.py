"""Sound -> log-mel spectrogram, by definition, on torch alone.

Power of the short-time Fourier transform (periodic Hann window, frames centred on multiples of the hop, edges
mirrored), summed by triangles that are evenly spaced on Slaney's mel scale and have the same area, in
decibels: 10 log10(max(power, 1e-10)). These are librosa's defaults, with which Cnn14 and CLAP (unfused) were
trained.

Shapes   B waveforms   S samples   W frames of the transform   K frequencies   M mel bands
Source   Slaney, Auditory Toolbox, 1998: linear below 1 kHz (3 mel = 200 Hz), logarithmic above (27 mel = a
         factor of 6.4)
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_HZ_PER_MEL = 200 / 3
_KNEE_HZ, _KNEE_MEL = 1000.0, 15.0
_LOG_STEP = math.log(6.4) / 27
_SMALLEST = 1e-10


def hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frequencies -> Slaney's mel scale."""
    above = _KNEE_MEL + np.log(np.maximum(hz, _KNEE_HZ) / _KNEE_HZ) / _LOG_STEP
    return np.where(hz < _KNEE_HZ, hz / _HZ_PER_MEL, above)


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's mel scale -> frequencies."""
    above = _KNEE_HZ * np.exp((np.maximum(mel, _KNEE_MEL) - _KNEE_MEL) * _LOG_STEP)
    return np.where(mel < _KNEE_MEL, mel * _HZ_PER_MEL, above)


@dataclass(frozen=True, kw_only=True)
class LogMel:
    """The front end of a sound network."""

    sample_rate: int  # samples a second
    window: int  # samples of a frame
    hop: int  # samples from frame to frame
    bands: int
    lowest_hz: float
    highest_hz: float

    def filters(self) -> NDArray[np.float64]:
        """(K, M): band m rises from corner m to m + 1 and falls to m + 2; the area of each is 1."""
        bins_K = np.linspace(0, self.sample_rate / 2, self.window // 2 + 1)
        lowest, highest = hz_to_mel(np.array([self.lowest_hz, self.highest_hz]))
        corners = mel_to_hz(np.linspace(lowest, highest, self.bands + 2))
        width = np.diff(corners)
        rising = (bins_K[:, None] - corners[:-2]) / width[:-1]
        falling = (corners[2:] - bins_K[:, None]) / width[1:]
        return np.maximum(0, np.minimum(rising, falling)) * 2 / (corners[2:] - corners[:-2])

    def __call__(self, waveform_BS: Tensor) -> Tensor:
        """(B, S) samples in [-1, 1] -> (B, W, M) decibels, W = S // hop + 1."""
        window = torch.hann_window(self.window, periodic=True, device=waveform_BS.device)
        spectrum = torch.stft(
            waveform_BS, self.window, self.hop, window=window, center=True, pad_mode="reflect",
            return_complex=True,
        )  # fmt: skip
        power_BWK = spectrum.abs().square().transpose(1, 2)
        filters_KM = torch.from_numpy(self.filters()).to(power_BWK)
        return 10 * (power_BWK @ filters_KM).clamp(min=_SMALLEST).log10()
