"""What tells one session of a run from another."""

import time
import uuid


def new_session() -> str:
    """Give a name by the time that no other session has, such as 20260131_235959_0a1b2c."""
    return time.strftime("%Y%m%d_%H%M%S") + f"_{uuid.uuid4().hex[:6]}"
