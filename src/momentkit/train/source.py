"""Where samples come from."""

from typing import Protocol

from momentkit.data.collate import Sample


class SampleSource(Protocol):
    """Samples by index; `sample` is a pure function of its arguments, so that a resumed run sees the same."""

    def __len__(self) -> int: ...

    def sample(self, index: int, epoch: int) -> Sample:
        """Sample `index` as it is in epoch `epoch`; both count from 0."""
        ...
