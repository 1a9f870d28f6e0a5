"""Fold the adapters of a training checkpoint into its base: a folder that speaks without LoRA, and alone.

A checkpoint of a run that trained all weights becomes such a folder too, and then the base may be without weights: a run
from scratch has only config and tokenizer to start from. The base is memory-mapped and changed tensor by
tensor, so that memory stays near the size of the model file. Before anything is written, the merged model's answers are
compared with those of base + adapter. What else goes into the folder, the reference voice above all, is `voice_pack`'s.
"""

from __future__ import annotations

import datetime
import logging
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .arguments import add_model_version, make_parser
from .configs import CONFIGS, read_lora
from .errors import UserError
from .errors import run as run_main
from .files import atomic_path, remove_leftovers, write_json, write_text
from .log import peak_memory_gb, setup
from .versions import (
    CONFIG_FILE,
    SPECIAL_TOKENS_FILE,
    TOKENIZER_FILE,
    VERSIONS,
    VOICE_FILE,
    WEIGHTS_FILE,
    ModelVersion,
    read_voice,
    settle_version,
)

if TYPE_CHECKING:
    import torch

    from .models import DualAR, LoraConfig

DTYPES = ("float32", "bfloat16", "float16")
log = logging.getLogger("fish_speech.merge_lora")  # not __name__: that is __main__ when the stage runs


def choose_lora(name: str | None, path: Path) -> LoraConfig | None:
    """The adapter's shape: the checkpoint's own record, checked against `name`; for other tools' files `name` alone.

    None for a checkpoint of a run that trained all weights.
    """
    from .models import LoraConfig, adapter_shape

    stored = adapter_shape(path)
    if stored is None and name is not None:
        raise UserError(
            f"{path} has no LoRA weights", f"so --lora-config {name} does not fit", "leave it out, or check the path"
        )
    if stored is None:
        return None
    if "lora_alpha" not in stored:
        if name is None:
            raise UserError(
                f"{path} does not say its lora_alpha", "another tool made it", "add --lora-config, as used in training"
            )
        return LoraConfig(**read_lora(name))
    own = LoraConfig(**stored)
    if name is not None and not own.fits(LoraConfig(**read_lora(name))):
        raise UserError(
            f"--lora-config {name} is not what {path} was trained with",
            f"trained with {own}",
            "leave --lora-config out: the checkpoint knows its shape",
        )
    return own


def merge(
    base: Path,
    adapter: Path,
    output: Path,
    lora_name: str | None = None,
    codec: Path | None = None,
    force: bool = False,
    codec_yaml: Path | None = None,
    dtype_name: str | None = None,
) -> dict[str, Any]:
    """Write the merged model folder to `output` and return what `voice.json` says.

    `codec_yaml` is the shape of `codec` (default: the yaml beside it, if any). `dtype_name` is the floating-point type to
    store, the base's if None. A folder that is whole and made from the same files is left as it is unless `force`.
    Raises UserError for what does not fit.
    """
    import torch

    from .checkpoint import newest_of, read_file, run_record, save_state_dict, sha256
    from .models import load_adapter, load_dual_ar
    from .models.loading import weights_path
    from .text import Tokenizer

    if output.resolve() == base.resolve():
        raise UserError(f"--output {output} is the base", "the base would be overwritten", "choose another folder")
    adapter = newest_of(adapter)
    lora = choose_lora(lora_name, adapter)
    copies = codec_files(codec, codec_yaml)
    done = made_before(base, adapter, output, copies, dtype_name)
    if done is not None and not force:
        log.info("%s is this merge already; --force makes it again", output)
        return done
    base_weights = weights_path(base)
    from_scratch = lora is None and not base_weights.is_file()
    dtype = stored_dtype(adapter if from_scratch else base_weights)
    model = load_dual_ar(base, dtype=dtype, lora=lora, weights=None if lora else adapter)
    content = load_adapter(model, adapter) if lora else read_file(adapter)
    step = content.get("global_step")
    info = run_record(content)
    base_hash = None if from_scratch else sha256(base_weights)
    settings = info.get("settings")
    trained_on = settings.get("base weights") if isinstance(settings, Mapping) else None
    if isinstance(trained_on, str) and trained_on != "new" and not (base_hash or "").startswith(trained_on):
        found = f"these have {base_hash[:16]}..." if base_hash else "there are none"
        raise UserError(
            f"{adapter} was not trained on {base}",
            f"it was trained on weights with the hash {trained_on}..., {found}",
            f"give the base it was trained on (then at {info.get('base')}) as --base-weight",
        )
    model.tokenizer = None  # 40 MB that are not needed until it is copied
    if lora is not None:
        merge_checked(model, dtype)
    if dtype_name is not None:
        model.to(getattr(torch, dtype_name))
    output.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output)
    with atomic_path(output / WEIGHTS_FILE) as temporary:
        save_state_dict(temporary, model.state_dict())  # the largest file first: a full disk leaves an old voice whole
        (output / VOICE_FILE).unlink(missing_ok=True)  # written last: a folder without it is not whole
    write_text(output / CONFIG_FILE, model.config.to_json())
    del model
    Tokenizer(base).save(output)
    for name, source in copies.items():
        copy_file(source, output / name)
    voice = {
        "format": 1,
        "toolkit": __version__,
        "base": portable(base, output),
        "base_sha256": base_hash,
        "dtype": dtype_name,
        "model_sha256": sha256(output / WEIGHTS_FILE),
        "codec": codec.name if codec else None,
        "lora": None if lora is None else shape_of(lora),
        "checkpoint": portable(adapter, output),
        "checkpoint_sha256": sha256(adapter),
        "step": step,
        "project": info.get("project"),
        "data": portable(info.get("data"), output),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    write_json(output / VOICE_FILE, voice)
    return voice


def shape_of(lora: LoraConfig) -> dict[str, Any]:
    """What `voice.json` says of the adapters: their shape, and where they were if not everywhere."""
    places = {"target_modules": list(lora.target_modules)} if lora.where else {}
    return {"r": lora.r, "lora_alpha": lora.lora_alpha, **places}


def portable(path: Any, output: Path) -> Any:
    """A path for `voice.json`, or a list of them, relative to the current folder.

    What lies neither below that folder nor beside `output` is named as it is: relative, it would say nothing elsewhere.
    """
    if isinstance(path, list):
        return [portable(part, output) for part in path]
    if not isinstance(path, str | Path) or not Path(path).is_absolute():
        return str(path) if isinstance(path, Path) else path
    here, resolved = Path.cwd(), Path(path).resolve()
    for name in (Path(path), resolved):
        if name.is_relative_to(here) and ".." not in name.parts:
            return name.relative_to(here).as_posix()
    if resolved.is_relative_to(output.resolve().parent):
        return Path(os.path.relpath(resolved, here)).as_posix()
    return str(path)


def codec_files(codec: Path | None, yaml: Path | None) -> dict[str, Path]:
    """What to copy so that the folder decodes alone: the names of the codec's weights and shape, and where they are."""
    if codec is None:
        return {}
    beside = codec.with_suffix(".yaml")
    shape = yaml or (beside if beside.is_file() else None)
    return {codec.name: codec, **({beside.name: shape} if shape else {})}


def made_before(
    base: Path, adapter: Path, output: Path, copies: Mapping[str, Path], dtype_name: str | None
) -> dict[str, Any] | None:
    """What `voice.json` in `output` says, if the folder is whole and was made from just these files."""
    from .checkpoint import sha256
    from .models.loading import weights_path

    files = [output / name for name in (WEIGHTS_FILE, CONFIG_FILE, TOKENIZER_FILE, SPECIAL_TOKENS_FILE)]
    try:
        voice = read_voice(output)
        base_weights = weights_path(base)
        hashes = {
            "base_sha256": base_weights if base_weights.is_file() else None,
            "checkpoint_sha256": adapter,
            "model_sha256": output / WEIGHTS_FILE,
        }
        same = all(voice[name] == (path and sha256(path)) for name, path in hashes.items())
        same &= all(sha256(source) == sha256(output / name) for name, source in copies.items())
        same &= voice.get("dtype") == dtype_name
        return voice if same and all(path.is_file() for path in files) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def merge_checked(model: DualAR, dtype: torch.dtype) -> None:
    """Merge in place; raise UserError unless the answers stay the same."""
    import torch

    from .models import merge_lora

    grid = probe_grid(model)
    with torch.inference_mode():
        before = answers(model, grid)
    merge_lora(model)
    with torch.inference_mode():
        check_equal(before, answers(model, grid), dtype)


def stored_dtype(path: Path) -> torch.dtype:
    """The floating-point dtype that most of a weights file has; the merged file keeps it."""
    from collections import Counter

    from .checkpoint import read_state_dict

    sizes: Counter = Counter()
    for tensor in read_state_dict(path).values():
        if tensor.is_floating_point():
            sizes[tensor.dtype] += tensor.numel()
    return sizes.most_common(1)[0][0]


def probe_grid(model: DualAR) -> torch.Tensor:
    """A short made-up utterance, (1, 1 + codebooks, tokens): some text, then frames, that touches every layer."""
    import torch

    rng = torch.Generator().manual_seed(0)
    codes = torch.randint(1, model.config.codebook_size, (1, model.config.num_codebooks, 12), generator=rng)
    frames = torch.cat([codes[:, :1] + model.semantic_begin_id, codes], dim=1)
    text = torch.zeros(1, 1 + model.config.num_codebooks, 12, dtype=torch.int64)
    text[0, 0] = torch.randint(0, model.semantic_begin_id, (12,), generator=rng)
    return torch.cat([text, frames], dim=2)


def answers(model: DualAR, grid: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits of token and codes for the probe, in float32; adapters are applied in the base's dtype."""
    import torch

    device = grid.device.type
    with torch.autocast(device, model.embeddings.weight.dtype, enabled=model.embeddings.weight.dtype != torch.float32):
        out = model(grid)
    return {"token": out.token_logits.float(), "codebook": out.codebook_logits.float()}


def check_equal(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor], dtype: torch.dtype) -> None:
    """Raise UserError unless merged answers equal base + adapter up to the rounding of `dtype`."""
    import torch

    limit = 1e-4 if dtype == torch.float32 else 5e-2  # share of the logits' spread; bf16 keeps 8 bits
    for name, logits in before.items():
        error = ((after[name] - logits).square().mean().sqrt() / logits.std()).item()
        if not error <= limit:
            raise UserError(
                f"the merged model does not answer as base + adapter ({name} logits differ by {error:.2%} of their spread)",
                "the adapter is damaged, or so large that the base's precision cannot hold the sum",
                "use an earlier checkpoint; nothing was written",
            )
        log.info("merged %s logits equal base + adapter within %.1e of their spread", name, error)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file atomically, unless the target is such a copy already: a voice that is merged again keeps its codec."""
    from .checkpoint import sha256

    same = target.is_file() and target.stat().st_size == source.stat().st_size
    if same and sha256(target) == sha256(source):
        return
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def find_codec(base: Path, version: ModelVersion, given: Path | None) -> Path | None:
    """The codec weights to copy along: the one given, or the version's in the base folder."""
    path = given or base / version.codec_file
    if path.is_file():
        return path
    if given:
        raise UserError(f"there is no codec file {given}", "it cannot be copied", "check --codec")
    log.warning("no codec at %s: the merged folder will need --codec to speak", path)
    return None


def codec_yaml(codec: Path, model_version: str) -> Path:
    """The yaml with the shape of `codec`: beside it, or the version's, which is the base's own: the two must fit."""
    beside = codec.with_suffix(".yaml")
    return beside if beside.is_file() else CONFIGS / "codec" / f"{VERSIONS[model_version].codec_config}.yaml"


def main(argv: list[str] | None = None) -> int:
    """Parse and merge."""
    parser = make_parser("python -m fish_speech.merge_lora", __doc__)
    parser.add_argument("--lora-config", help="a name in configs/lora; default: what the checkpoint was trained with")
    parser.add_argument(
        "--base-weight", type=Path, help="base model folder; it says its version by itself (default: the version's)"
    )
    parser.add_argument(
        "--lora-weight", type=Path, required=True, help="step_N.ckpt with LoRA weights, or their folder for the newest"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write the merged model to")
    parser.add_argument("--codec", type=Path, help="codec weights to copy along (default: the base folder's)")
    parser.add_argument(
        "--dtype", choices=DTYPES, help="floating-point type to store the weights in (default: the base's)"
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="data set to choose the reference from (default: what the checkpoint was trained on)",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="CLIP",
        help="this clip as reference (.wav or .npy, its words in the .txt beside it)",
    )
    parser.add_argument(
        "--reference-speaker", help="choose the reference from this speaker (default: who has the most speech)"
    )
    parser.add_argument("--no-reference", action="store_true", help="no reference in the folder")
    parser.add_argument("--force", action="store_true", help="merge again even if nothing has changed")
    add_model_version(parser)
    arguments = parser.parse_args(argv)
    setup()
    from . import voice_pack

    wish = voice_pack.Wish(
        not arguments.no_reference,
        arguments.reference,
        arguments.data_dir,
        arguments.reference_speaker,
        arguments.force,
    )
    version = settle_version(arguments.model_version, arguments.base_weight)
    base = arguments.base_weight or version.folder
    voice_pack.check_wish(wish, base)
    codec = find_codec(base, version, arguments.codec)
    voice = merge(
        base,
        arguments.lora_weight,
        arguments.output,
        arguments.lora_config,
        codec,
        arguments.force,
        codec_yaml(codec, version.name) if codec else None,
        arguments.dtype,
    )
    voice_pack.complete(arguments.output, voice, arguments.lora_weight, base, version.name, wish)
    log.info("peak memory %.2f GB", peak_memory_gb())
    sys.stdout.write(f"merged step {voice['step']} into {arguments.output}\n")
    return 0


if __name__ == "__main__":
    run_main(main)
