"""The scripts of images/rehearsal run inside the image; here they are imported from where they lie."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "images" / "rehearsal"))
