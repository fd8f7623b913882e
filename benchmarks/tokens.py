"""Print the CPU time of verifying a token: `uv run python benchmarks/tokens.py`."""

import asyncio
import sys
import time
from pathlib import Path

from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).parents[1]))

from auth import TokenVerifier  # importable because of the line above
from main import sign
from settings import Settings
from tests.auth_server import SigningKey, auth_server

SECRET = SecretStr("the secret of the benchmark, 32 bytes and more")
TOKENS = 500
ROUNDS = 5


async def _microseconds(verifier: TokenVerifier, tokens: list[str]) -> float:
    began = time.process_time()
    for token in tokens:
        await verifier.verify(token)
    return (time.process_time() - began) / len(tokens) * 1e6


async def _measure(algorithm: str) -> tuple[float, float]:
    """Return the CPU time per token, new and seen before: microseconds, the fastest round."""
    firsts, agains = [], []
    with auth_server() as server:
        key = SigningKey(algorithm if algorithm != "HS256" else "EdDSA")
        server.members = [key.member]
        settings = Settings(better_auth_secret=SECRET, better_auth_url=server.url, _env_file=None)
        for round_ in range(ROUNDS):
            verifier = TokenVerifier(settings)
            tokens = [
                sign(SECRET, f"user-{round_}-{number}", minutes=5)
                if algorithm == "HS256"
                else key.token(server.claims(jti=f"{round_}-{number}"))
                for number in range(TOKENS)
            ]
            if algorithm != "HS256":
                await verifier.verify(key.token(server.claims()))  # fetches the key set
            firsts.append(await _microseconds(verifier, tokens))
            agains.append(await _microseconds(verifier, tokens))
    return min(firsts), min(agains)


if __name__ == "__main__":
    print("| algorithm | first, us | again, us | ratio |")
    print("|---|---|---|---|")
    for name in ("HS256", "EdDSA", "ES256", "ES512", "RS256", "PS256"):
        first, again = asyncio.run(_measure(name))
        print(f"| {name} | {first:.0f} | {again:.1f} | {first / again:.0f} |")
