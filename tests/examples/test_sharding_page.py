"""`docs/sharding.md`: its code prints on eight devices what the page shows."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_shows_what_its_code_prints():
    blocks = BLOCK.findall((ROOT / "docs" / "sharding.md").read_text(encoding="utf-8"))
    code = "".join(text for language, text in blocks if language == "python")
    shown = [
        text
        for (before, _), (language, text) in itertools.pairwise(blocks)
        if (before, language) == ("python", "text")
    ]
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path]),
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "".join(shown)
