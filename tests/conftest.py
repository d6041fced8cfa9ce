"""One thread, no hub, and the same hypothesis examples every time."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("posttrain", deadline=None, max_examples=40, derandomize=True, database=None)
settings.load_profile("posttrain")
