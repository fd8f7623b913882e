"""The README's session with curl."""

import re

from settings import ROOT

_, _, SECTION = (ROOT / "README.md").read_text().partition("## Try it with curl\n")
SESSION = re.findall(r"```bash\n(.*?)```", SECTION, re.DOTALL)[0]
