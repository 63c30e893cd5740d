"""Files that are written whole or not at all."""

import os
from pathlib import Path


def write_together(files: dict[Path, bytes]) -> None:
    """Write every file under another name first, so that an error leaves what was there."""
    fresh = {path: path.with_name(f"{path.name}.{os.getpid()}.new") for path in files}
    try:
        for path, body in files.items():
            fresh[path].write_bytes(body)
        for path, written in fresh.items():
            os.replace(written, path)
    finally:
        for written in fresh.values():
            written.unlink(missing_ok=True)
