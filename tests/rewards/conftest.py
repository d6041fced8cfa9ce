"""Let tests, and the workers that they start, import the module `misbehaving` beside them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
