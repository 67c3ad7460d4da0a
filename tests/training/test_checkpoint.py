"""Checkpoints come back as they were, whole or not at all."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from accelerate import load_checkpoint_in_model
from safetensors.torch import save_file

from backbones.errors import UserError
from backbones.training.checkpoint import (
    find_resumable,
    load_sound_state,
    load_state,
    load_weights,
    read_description,
    save_checkpoint,
)
from backbones.training.manifest import measure, verify_checkpoint
from backbones.training.run_files import find_checkpoint, weights_file


def network(seed: int = 0, channels: int = 4) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Conv2d(3, channels, 3), torch.nn.BatchNorm2d(channels)).to(
        memory_format=torch.channels_last
    )


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, b.state_dict()[key]) for key, x in a.state_dict().items())


def test_weights_average_description_and_state_come_back(tmp_path):
    state = {"step": 7, "optimizer": {"momentum": [torch.ones(2)]}, "best_top1": 1.5, "name": None}
    save_checkpoint(tmp_path / "last", network(0).state_dict(), {"step": 7}, ema=network(1).state_dict(), state=state)
    plain, average = network(2), network(3)
    load_weights(plain, weights_file(tmp_path / "last", ema=False))
    load_weights(average, weights_file(tmp_path / "last"))
    assert equal(plain, network(0))
    assert equal(average, network(1))
    assert read_description(weights_file(tmp_path / "last")) == {"format": 1, "step": 7}
    assert load_state(tmp_path / "last")["step"] == 7


def test_a_new_checkpoint_replaces_the_old_one_and_leaves_nothing_behind(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path / "last", network(step).state_dict(), {"step": step}, state={"step": step})
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    assert load_state(tmp_path / "last")["step"] == 2


def test_a_save_that_fails_half_way_leaves_the_old_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "last", network(0).state_dict(), {"step": 1}, state={"step": 1})
    with pytest.raises(AttributeError):
        save_checkpoint(tmp_path / "last", network(1).state_dict(), {"step": 2}, state=lambda: None)
    assert load_state(find_checkpoint(tmp_path))["step"] == 1
    plain = network(2)
    load_weights(plain, weights_file(find_checkpoint(tmp_path)))
    assert equal(plain, network(0))


def test_a_kill_between_the_two_renames_leaves_the_old_checkpoint_in_reach(tmp_path):
    save_checkpoint(tmp_path / "last", network(0).state_dict(), {"step": 1}, state={"step": 1})
    (tmp_path / "last").rename(tmp_path / "last.old")
    assert load_state(find_checkpoint(tmp_path))["step"] == 1


def test_a_run_folder_means_its_last_checkpoint(tmp_path):
    for name in ("best", "last"):
        save_checkpoint(tmp_path / name, network().state_dict(), {})
    assert find_checkpoint(tmp_path) == tmp_path / "last"
    assert find_checkpoint(tmp_path / "best") == tmp_path / "best"
    assert find_checkpoint(tmp_path / "best" / "model.safetensors").is_file()


def test_a_path_that_does_not_exist_is_an_error_with_near_names(tmp_path):
    (tmp_path / "run-12").mkdir()
    with pytest.raises(UserError, match=r"there is no .*run-13. Did you mean .*run-12\?"):
        find_checkpoint(tmp_path / "run-13")


def test_a_folder_without_a_checkpoint_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"holds no checkpoint: expected model.safetensors"):
        find_checkpoint(tmp_path)


def test_weights_of_another_architecture_are_refused_by_name(tmp_path):
    save_checkpoint(tmp_path / "last", network(channels=5).state_dict(), {})
    with pytest.raises(UserError, match=r"another architecture than tiny: 6 tensors of another shape, first 0.weight"):
        load_weights(network(), weights_file(tmp_path / "last"), name="tiny")


def test_missing_and_unknown_tensors_are_named(tmp_path):
    weights = dict(network().state_dict())
    weights["extra"] = weights.pop("1.bias")
    save_file({key: value.contiguous() for key, value in weights.items()}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"1 tensors missing, first 1.bias; 1 tensors unknown, first extra"):
        load_weights(network(), tmp_path / "w.safetensors")


def test_a_format_of_another_version_is_refused(tmp_path):
    header = {"backbones": json.dumps({"format": 99})}
    save_file({"w": torch.zeros(1)}, tmp_path / "x.safetensors", metadata=header)
    with pytest.raises(UserError, match="has format 99; this version of backbones reads 1"):
        read_description(tmp_path / "x.safetensors")


def test_a_file_that_is_not_safetensors_is_an_error(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"<html>")
    for read in (read_description, lambda file: load_weights(network(), file)):
        with pytest.raises(UserError, match="is not a readable safetensors file"):
            read(tmp_path / "x.safetensors")


def test_a_state_that_would_run_code_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (json.dumps, ({},))

    (tmp_path / "last").mkdir()
    torch.save({"step": Payload()}, tmp_path / "last" / "state.pt")
    with pytest.raises(UserError, match="cannot be read: Weights only load failed"):
        load_state(tmp_path / "last")


def test_a_checkpoint_without_training_state_cannot_be_resumed(tmp_path):
    save_checkpoint(tmp_path / "best", network().state_dict(), {})
    with pytest.raises(UserError, match="cannot be resumed"):
        load_state(tmp_path / "best")


# Integrity


def save_steps(folder, *steps: int, kept: int = 2) -> None:
    for step in steps:
        save_checkpoint(folder / "last", network(step).state_dict(), {}, state={"step": step}, kept=kept)


def test_the_newest_checkpoints_are_kept_in_order(tmp_path):
    save_steps(tmp_path, 1, 2, 3, 4)
    assert {path.name: load_state(path)["step"] for path in tmp_path.iterdir()} == {"last": 4, "last-1": 3, "last-2": 2}


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


DAMAGES = {
    "flipped bit": (flip_a_bit, r"has other content than was written \(its sha256 differs\)"),
    "lost byte": (lambda file: file.write_bytes(file.read_bytes()[:-1]), r"has \d+ bytes instead of \d+"),
    "empty": (lambda file: file.write_bytes(b""), "has 0 bytes instead of"),
    "lost": (lambda file: file.unlink(), "is missing"),
}


@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors", "state.pt"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_any_damage_is_found_and_named(tmp_path, damage, name):
    ema = network(1).state_dict()
    save_checkpoint(tmp_path / "last", network(0).state_dict(), {}, ema=ema, state={"step": 1})
    verify_checkpoint(tmp_path / "last")
    spoil, message = DAMAGES[damage]
    spoil(tmp_path / "last" / name)
    with pytest.raises(UserError, match=f"last is damaged: {name} {message}"):
        verify_checkpoint(tmp_path / "last")


def test_a_manifest_that_cannot_be_read_is_damage(tmp_path):
    save_steps(tmp_path, 1)
    (tmp_path / "last" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest.json cannot be read"):
        verify_checkpoint(tmp_path / "last")


def test_the_newest_sound_checkpoint_is_found_and_the_others_are_named(tmp_path):
    save_steps(tmp_path, 1, 2, 3)
    flip_a_bit(tmp_path / "last" / "model.safetensors")
    (tmp_path / "last-1" / "state.pt").unlink()
    folder, faults = find_resumable(tmp_path)
    assert folder == tmp_path / "last-2"
    assert ["/last is damaged" in str(faults[0]), "/last-1 is damaged" in str(faults[1])] == [True, True]


def test_damage_everywhere_is_no_reason_to_begin_anew(tmp_path):
    save_steps(tmp_path, 1, 2)
    for folder in tmp_path.iterdir():
        flip_a_bit(folder / "state.pt")
    with pytest.raises(UserError, match=r"no checkpoint of .* is sound, and nothing was overwritten"):
        find_resumable(tmp_path)


def test_a_folder_without_checkpoints_has_none_to_resume(tmp_path):
    assert find_resumable(tmp_path / "new") == (None, [])


def test_a_kill_between_the_last_two_renames_leaves_the_checkpoint_before(tmp_path):
    save_steps(tmp_path, 1, 2)
    (tmp_path / "last").rename(tmp_path / "gone")
    assert find_resumable(tmp_path)[0] == find_checkpoint(tmp_path) == tmp_path / "last-1"


def test_the_manifest_says_what_the_checkpoint_is(tmp_path):
    save_checkpoint(tmp_path / "last", network(0).state_dict(), {}, about={"step": 7})
    manifest = json.loads((tmp_path / "last" / "manifest.json").read_text())
    assert (manifest["schema"], manifest["step"], set(manifest["files"])) == (4, 7, {"model.safetensors"})
    assert manifest["files"]["model.safetensors"]["bytes"] == (tmp_path / "last" / "model.safetensors").stat().st_size


def test_a_gap_is_filled_and_no_older_checkpoint_is_lost(tmp_path):
    save_steps(tmp_path, 1, 2, 3)
    shutil.rmtree(tmp_path / "last-1")
    save_steps(tmp_path, 4)
    assert {path.name: load_state(path)["step"] for path in tmp_path.iterdir()} == {"last": 4, "last-1": 3, "last-2": 1}


def test_a_damaged_checkpoint_is_set_aside_and_pushes_no_sound_one_out(tmp_path):
    save_steps(tmp_path, 1, 2, 3)
    for name in ("last", "last-1"):
        flip_a_bit(tmp_path / name / "model.safetensors")
    faults = save_checkpoint(tmp_path / "last", network(4).state_dict(), {}, state={"step": 4}, kept=2)
    steps = {path.name: load_state(path)["step"] for path in tmp_path.iterdir()}
    assert steps == {"last": 4, "last-2": 1, "damaged-last": 3, "damaged-last-1": 2}
    assert [re.search(r"(\S+) is damaged: model", str(fault)).group(1) for fault in faults] == [  # type: ignore[union-attr]
        str(tmp_path / "last"), str(tmp_path / "last-1"),
    ]  # fmt: skip


def test_damaged_checkpoints_do_not_replace_each_other(tmp_path):
    for step in (1, 2):
        save_steps(tmp_path, step)
        flip_a_bit(tmp_path / "last" / "model.safetensors")
    save_steps(tmp_path, 3)
    assert load_state(tmp_path / "damaged-last")["step"] == 1
    assert load_state(tmp_path / "damaged-last.1")["step"] == 2


def pretend_sound(folder) -> None:
    """Write a manifest that fits the files as they are, as someone who changed them on purpose would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {name: measure(folder / name) for name in manifest["files"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_tensor_lost_from_the_state_is_named_even_where_all_sums_fit(tmp_path):
    state = {"step": 1, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}}}
    save_checkpoint(tmp_path / "last", network().state_dict(), {}, state=state)
    load_sound_state(tmp_path / "last")
    state["optimizer"]["state"].clear()  # type: ignore[index]
    torch.save(state, tmp_path / "last" / "state.pt")
    pretend_sound(tmp_path / "last")
    with pytest.raises(UserError, match=r"damaged: optimizer.state.0.momentum_buffer in state.pt is missing"):
        load_sound_state(tmp_path / "last")


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path):
    """1,577 bytes that would need 64 GB when copied."""
    save_steps(tmp_path, 1)
    huge = torch.zeros(1).as_strided((2**34,), (0,))
    torch.save({"step": 1, "batch_norm": [huge]}, tmp_path / "last" / "state.pt")
    message = r"batch_norm.0 claims the shape \[17179869184\] but holds 4 bytes"
    with pytest.raises(UserError, match=message):
        load_state(tmp_path / "last")


def test_a_state_that_would_unpack_to_more_than_it_has_is_refused(tmp_path):
    save_steps(tmp_path, 1)
    file = tmp_path / "last" / "state.pt"
    torch.save({"zeros": torch.zeros(1_000_000)}, file)
    with zipfile.ZipFile(file) as plain:
        contents = {entry: plain.read(entry) for entry in plain.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry, content in contents.items():
            packed.writestr(entry, content)
    with pytest.raises(UserError, match="cannot be read: it would unpack to more bytes than it has"):
        load_state(tmp_path / "last")


@pytest.mark.slow
def test_a_hundred_kills_while_saving_leave_a_checkpoint_each_time(tmp_path):
    """The newest sound one is the last that was complete, or the one that was being written."""
    probe = Path(__file__).parents[1] / "probes" / "killed_saves.py"
    done = subprocess.run([sys.executable, probe, tmp_path, "100"], capture_output=True, text=True, check=True)
    outcomes = json.loads(done.stdout)
    assert len(outcomes) == 100
    assert all(found in (complete, complete + 1) for complete, found in outcomes)


def test_accelerate_takes_the_weights(tmp_path):
    """It asks the header of a safetensors file which library wrote it."""
    torch.manual_seed(0)
    network, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    save_checkpoint(tmp_path / "best", network.state_dict(), {"classes": ["a", "b"]})
    load_checkpoint_in_model(other, str(tmp_path / "best"))
    assert torch.equal(other.weight, network.weight)


def test_the_description_for_timm_is_a_file_of_the_manifest(tmp_path):
    save_checkpoint(
        tmp_path / "best", torch.nn.Linear(3, 2).state_dict(), {}, config={"architecture": "a", "std": (1, 2)}
    )
    assert json.loads((tmp_path / "best" / "config.json").read_text()) == {"architecture": "a", "std": [1, 2]}
    verify_checkpoint(tmp_path / "best")
    (tmp_path / "best" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config.json has 2 bytes instead of"):
        verify_checkpoint(tmp_path / "best")
