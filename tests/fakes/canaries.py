"""Recognisable secrets for the environment, and the files that hold one."""

from pathlib import Path

CANARIES = {
    name: f"canary-{number}-{name.lower().replace('_', '')}"
    for number, name in enumerate(
        (
            *("DIDACT_API_KEYS", "HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
            *("AZURE_STORAGE_ACCOUNT_KEY", "FSSPEC_S3_SECRET", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
            *("MLFLOW_TRACKING_TOKEN", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "WANDB_API_KEY"),
        )
    )
}
"""Variable -> value; those of other providers are handed to nobody, but processes inherit them."""


def files_with_canaries(*folders: Path) -> dict[str, list[str]]:
    """Every file below the folders that holds one of the values, and the variables whose values it holds."""
    found = {}
    for file in (each for folder in folders for each in folder.rglob("*")):
        if file.is_symlink() or not file.is_file():
            continue
        content = file.read_bytes()
        if names := [name for name, value in CANARIES.items() if value.encode() in content]:
            found[str(file)] = names
    return found
