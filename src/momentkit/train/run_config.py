"""One TOML file, one run: sections [model], [data], [train], [predict]; unknown keys are refused by name.

[model] holds `name` and the options of that model. Its input widths follow from [data] and need not be given.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from momentkit.core.config import build, override, read_toml
from momentkit.core.errors import ConfigError
from momentkit.data.dataset import DataConfig
from momentkit.predict.decode import PostProcess
from momentkit.train.options import TrainConfig

SECTIONS = ("model", "data", "train", "predict")


@dataclass(frozen=True)
class RunConfig:
    """A run, checked except for the model's options, which its builder checks.

    Attributes:
        model: name and options of the model.
        data: what it learns from.
        train: how it learns.
        predict: how its answers are read.
    """

    model: Mapping[str, Any]
    data: DataConfig
    train: TrainConfig
    predict: PostProcess


def read_run_config(
    path: str | Path, settings: Sequence[str] = (), *, seed: int | None = None, root: str | None = None
) -> RunConfig:
    """Read and check a configuration file.

    Args:
        path: the TOML file.
        settings: "section.key=value" changes, applied in order.
        seed: in place of train.seed.
        root: in place of data.root. A relative root is relative to the working directory.

    Raises:
        ConfigError: unreadable, or a section or option that does not exist or has a bad value.
    """
    settings = [*settings]
    if seed is not None:
        settings.append(f"train.seed={seed}")
    if root is not None:
        settings.append(f"data.root={json.dumps(root)}")
    return parse_run(override(read_toml(path), settings), str(path))


def parse_run(values: Mapping[str, Any], where: str) -> RunConfig:
    """Check the nested options of a run; `where` is named in messages."""
    if unknown := sorted(values.keys() - set(SECTIONS)):
        raise ConfigError(f"{where}: no section [{unknown[0]}]; there are {', '.join(SECTIONS)}")
    for section in SECTIONS:
        if not isinstance(values.get(section, {}), Mapping):
            raise ConfigError(f"{where}: [{section}] must be a section, got {values[section]!r}")
    if not isinstance(values.get("model", {}).get("name"), str):
        raise ConfigError(f'{where}: [model] has no name; give one, such as name = "flashvtg"')
    return RunConfig(
        dict(values["model"]),
        build(DataConfig, values.get("data", {}), f"{where} [data]"),
        build(TrainConfig, values.get("train", {}), f"{where} [train]"),
        build(PostProcess, values.get("predict", {}), f"{where} [predict]"),
    )


def to_toml(config: RunConfig) -> str:
    """The run as TOML with all options, defaults included: what a run directory keeps."""
    sections = {"model": config.model} | {name: asdict(getattr(config, name)) for name in SECTIONS[1:]}
    lines = []
    for name, options in sections.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {_value(value)}" for key, value in options.items() if value is not None]
        lines.append("")
    return "\n".join(lines)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        inner = (f"{key} = {_value(item)}" for key, item in value.items() if item is not None)
        return "{ " + ", ".join(inner) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(value)  # strings, numbers and booleans of JSON are TOML


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Options in which two runs differ, as "section.key: old -> new".

    Options that change no weight are passed over: data.root, train.threads, and train.epochs where the
    schedule does not depend on it.
    """
    free_train = {"threads"} | ({"epochs"} if new.train.schedule != "cosine" else set())
    old = replace(old, data=replace(old.data, root=new.data.root))
    pairs = [("model", key, old.model.get(key), new.model.get(key)) for key in {**old.model, **new.model}]
    for section in SECTIONS[1:]:
        before, after = getattr(old, section), getattr(new, section)
        for field in fields(before):
            if not (section == "train" and field.name in free_train):
                pairs.append((section, field.name, getattr(before, field.name), getattr(after, field.name)))
    return [f"{section}.{key}: {a!r} -> {b!r}" for section, key, a, b in pairs if not _same(a, b)]


def _same(a: object, b: object) -> bool:
    return (list(a) if isinstance(a, tuple) else a) == (list(b) if isinstance(b, tuple) else b)
