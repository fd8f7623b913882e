"""Write openapi.yaml: `uv run python docs/contracts/generate.py`."""

import sys
from pathlib import Path

import yaml
from pydantic import SecretStr

CONTRACT = Path(__file__).with_name("openapi.yaml")
sys.path.insert(0, str(CONTRACT.parents[2]))

from main import create_app  # noqa: E402  # importable because of the line above
from settings import Settings  # noqa: E402


def render() -> str:
    """Render what `/openapi.json` serves; no setting changes it."""
    secret = SecretStr("signs nothing here".ljust(32, "."))
    app = create_app(Settings(better_auth_secret=secret, _env_file=None))
    return yaml.safe_dump(app.openapi(), sort_keys=False, allow_unicode=True, width=100)


if __name__ == "__main__":
    CONTRACT.write_text(render())
