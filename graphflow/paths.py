"""Where the repository's own files are."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
CONF = ROOT / "conf"
ASSETS = PACKAGE / "assets"
RESULTS = ROOT / "results"
