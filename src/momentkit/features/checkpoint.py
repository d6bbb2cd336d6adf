"""A checkpoint in the format of transformers, from a directory or the hub: pinned, known by its checksum.

Only safetensors are read, nothing is unpickled. The revision that stands in a contract is
"<commit>+sha256:<16 digits>" for the hub and "sha256:<16 digits>" for a directory; the digits are the
checksum of the weights, so that a copy on disk is known to be the same.
"""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from momentkit.core.errors import FeatureError, MissingExtraError, QueryError
from momentkit.core.files import read_bytes, sha256

_MAX_JSON_BYTES = 64 * 1024**2
_CHECKSUM = "sha256:"


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        model: in eval mode, float32, without gradients.
        tokenizer: of its sentences; None where it was not asked for.
        settings: of its preprocessor; empty where it has none.
        name, revision: for the contract.
    """

    model: Any
    tokenizer: Any
    settings: dict[str, Any]
    name: str
    revision: str


def word_pieces(tokenizer: Any, sentence: str, places: int, encoder: str) -> list[int]:
    """A sentence's tokens, start and end included.

    Args:
        tokenizer: of a checkpoint; adds the start and the end token.
        sentence: any.
        places: tokens that the encoder has positions for.
        encoder: its name, for the message.

    Raises:
        QueryError: it is empty, or of more tokens than `places`.
    """
    if not sentence.strip():
        raise QueryError("the sentence is empty; say what to look for")
    tokens: list[int] = tokenizer(sentence)["input_ids"]
    if len(tokens) > places:
        raise QueryError(
            f"the sentence has {len(tokens) - 2} word pieces, the encoder {encoder} takes {places - 2}; "
            f"say it shorter: {sentence[:60]!r}"
        )
    return tokens


def transformers_for(family: str) -> ModuleType:
    """The module `transformers`, without progress bars where standard error is no terminal.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import transformers
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtraError(
            f"the {family} encoder needs transformers, which is not installed: "
            "pip install 'momentkit[encoders]'"
        ) from error
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    return transformers


def load_checkpoint(
    source: str | Path,
    *,
    family: str,
    kind: str,
    model_class: Any,
    tokenizer_class: Any = None,
    name: str | None = None,
    revision: str = "",
    device: str = "cpu",
) -> Checkpoint:
    """Load a checkpoint of one family.

    Args:
        source: hub id, or a directory as `save_pretrained` writes it.
        family: for messages, such as "CLIP".
        kind: `model_type` of its config.json.
        model_class, tokenizer_class: of transformers.
        name: for the contract; None = the hub id, or the directory's name.
        revision: hub commit or branch, or a revision as a contract states it; "" = the newest.
        device: torch device.

    Raises:
        FeatureError: there is no such checkpoint, or it cannot be fetched.
    """
    where, folder = str(source), Path(source) if Path(source).is_dir() else None
    if folder is not None and kind_of(folder) != kind:
        raise FeatureError(
            f"{folder} holds no {family} checkpoint: config.json with model_type {kind!r}, "
            "model.safetensors and, for text, the tokenizer's files are needed"
        )
    commit = commit_of(revision) or "main"  # a directory has no commits: there it is passed over
    try:
        model = model_class.from_pretrained(where, use_safetensors=True, dtype=torch.float32, revision=commit)
        tokenizer = tokenizer_class and tokenizer_class.from_pretrained(where, revision=commit)
        settings = _settings(where, folder, commit)
    except (OSError, ValueError, KeyError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise FeatureError(
            f"cannot load the {family} encoder {where}: {first_line}; "
            f"give the directory of a {family} checkpoint"
        ) from error
    weights = folder or _hub_folder(where, commit)
    found = (
        "" if folder or weights is None else weights.name
    )  # the hub's cache keeps a folder for each commit
    return Checkpoint(
        model=model.to(device).eval().requires_grad_(False),
        tokenizer=tokenizer,
        settings=settings,
        name=name or (folder.resolve().name if folder else where),
        revision="+".join(part for part in (found, weights_checksum(weights)) if part),
    )


def kind_of(folder: Path) -> str:
    """What a directory says that it holds: `model_type` of its config.json; "" where it says nothing."""
    config = folder / "config.json"
    return str(_json(config).get("model_type", "")) if config.is_file() else ""


def commit_of(revision: str) -> str:
    """The hub commit in a contract's revision; "" where it states none."""
    first = revision.split("+")[0]
    return "" if first.startswith(_CHECKSUM) else first


def same_weights(wanted: str, seen: str) -> bool:
    """Whether two revisions mean the same weights: by checksum where both have one, else by commit.

    A wanted revision that is not stated fits any.
    """
    checksums = [next((p for p in text.split("+") if p.startswith(_CHECKSUM)), "") for text in (wanted, seen)]
    if all(checksums):
        return checksums[0] == checksums[1]
    commit = commit_of(wanted)
    return not wanted or wanted == seen or bool(commit and commit == commit_of(seen))


def weights_checksum(folder: Path | None) -> str:
    """Checksum of a folder's safetensors, as contracts state it; "" where there are none."""
    files = sorted(folder.glob("*.safetensors")) if folder else []
    if not files:
        return ""
    digest = hashlib.sha256()
    for file in files:
        digest.update(bytes.fromhex(sha256(file)))
    return f"{_CHECKSUM}{digest.hexdigest()[:16]}"


def _hub_folder(where: str, commit: str) -> Path | None:
    """Where the hub's files of a commit lie on this machine."""
    from transformers.utils import cached_file

    found = cached_file(where, "config.json", revision=commit, _raise_exceptions_for_missing_entries=False)
    return Path(found).parent if found else None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(path, _MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise FeatureError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise FeatureError(f"{path} must hold an object {{...}}, got {type(content).__name__}")
    return content


def _settings(where: str, folder: Path | None, revision: str) -> dict[str, Any]:
    """The checkpoint's preprocessor settings; empty where it has none."""
    from transformers.utils import cached_file

    for name, key in (
        ("preprocessor_config.json", ""),
        ("processor_config.json", "image_processor"),
        ("processor_config.json", "feature_extractor"),
    ):
        found: str | None
        if folder is not None:
            found = str(folder / name) if (folder / name).is_file() else None
        else:
            found = cached_file(where, name, revision=revision, _raise_exceptions_for_missing_entries=False)
        content = _json(Path(found)) if found is not None else {}
        if content and (not key or key in content):
            return content[key] if key else content
    return {}
