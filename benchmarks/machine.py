"""What a result was measured on, in words that name no host and no path."""

import importlib.metadata
import os
import platform
from pathlib import Path

UNITS = (("amx_bf16", "amx"), ("avx512f", "avx512"), ("avx2", "avx2"), ("asimd", "neon"))
PACKAGES = ("torch", "transformers", "nnsight", "transformer-lens", "sae-lens", "interp-engine")


def name() -> str:
    """The machine as results are named: `cpu-2-cores-avx512`."""
    return f"cpu-{cores()}-cores-{_units()}"


def cores() -> int:
    """Cores that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def _units() -> str:
    """The widest vector units that the processor says it has."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    return next((unit for flag, unit in UNITS if flag in flags), platform.machine())


def load() -> float:
    """Runnable processes over the last minute, for each core: above 0.5, something else was running too."""
    return round(os.getloadavg()[0] / cores(), 2)


def busy_s() -> float | None:
    """Seconds of processor time that all processes have taken since the machine started; None where nothing says."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _, _, interrupts, soft, stolen = map(int, stat.read_text().split(maxsplit=9)[1:9])
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def own_s() -> float:
    """Seconds of processor time that this process and those it waited for have taken."""
    return sum(os.times()[:4])


def versions() -> dict[str, str]:
    """Versions of Python and of what is measured; those not installed are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
