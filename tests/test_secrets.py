"""Keys and passwords of the environment reach no file of a run, no line of its output, and nothing that W&B gets."""

from pathlib import Path

import pytest

from backbones.errors import UserError
from tests.training.wandb_server import KEY, serve

CANARY = "canary7f3a"
API_KEY = (CANARY + KEY)[: len(KEY)]
OFFLINE = ("--log-wandb", "--wandb-mode", "offline")


def find_canary(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


@pytest.fixture
def secrets(monkeypatch, no_wandb, tmp_path) -> Path:
    """Secrets wherever a machine has them; the file of netrc."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"default\n  login user\n  password {API_KEY}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "WANDB_NOTES_TOKEN"):
        monkeypatch.setenv(name, CANARY)
    return netrc


def test_secrets_reach_no_file_of_an_offline_run(train, folder, secrets, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    train(*OFFLINE)
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"recipe.yaml", "metrics.jsonl", "state.pt", "debug.log"} <= names
    assert any(name.endswith(".wandb") for name in names)
    assert find_canary(folder) == []
    assert CANARY not in "".join(capfd.readouterr())


@pytest.mark.parametrize("source", ["environment", "netrc"])
def test_the_key_reaches_the_server_and_no_file(train, folder, secrets, monkeypatch, capfd, source):
    if source == "environment":
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)
        secrets.unlink()
    with serve() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        train("--log-wandb", "--epochs", "1")
    assert server.keys == {API_KEY}
    assert len(server.rows) > 2
    assert server.files.keys() == {"wandb-metadata.json", "wandb-summary.json", "config.yaml"}
    metadata = server.files["wandb-metadata.json"].decode()
    assert '"host"' in metadata
    assert not [word for word in ('"args"', '"git"', '"email"', '"username"', "--log-wandb") if word in metadata]
    assert not any(CANARY.encode() in content for content in server.requests)
    assert find_canary(folder) == []
    assert CANARY not in "".join(capfd.readouterr())


def test_the_password_of_a_proxy_is_not_in_the_warning(train, folder, secrets, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://user:{CANARY}@wandb.invalid")
    monkeypatch.setenv("http_proxy", f"http://user:{CANARY}@127.0.0.1:9")
    train("--log-wandb", "--epochs", "1")
    out = "".join(capfd.readouterr())
    assert "W&B failed" in out
    assert CANARY not in out
    assert find_canary(folder) == []


@pytest.mark.parametrize(
    "words",
    [
        ("--wandb-key", CANARY),
        (f"--wandb-api-key={CANARY}",),
        ("--log.api_key", CANARY),
        ("--wandb-project", f"https://user:{CANARY}@wandb.invalid/project"),
    ],
)
def test_a_key_on_the_command_line_is_refused_before_anything_is_written(train, folder, words):
    with pytest.raises((UserError, SystemExit)) as refusal:
        train(*words)
    assert not folder.exists()
    assert words[0].startswith("--wandb-project") or CANARY not in str(refusal.value)
