"""How much memory the largest pictures take that people may upload, each in a process of its own.

    python tests/bench/pictures.py

On Linux and macOS. Pictures are read one at a time, so a site takes no more for several of them.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

PROJECT = Path(__file__).resolve().parent.parent.parent
MEMORY_MAX = 800  # MB
# By name: the format, the size, the frames, and how it is saved. All have nearly as many pixels as are taken.
PICTURES: dict[str, tuple[str, tuple[int, int], int, dict[str, Any]]] = {
    "photo": ("JPEG", (7000, 7100), 1, {}),
    "progressive photo": ("JPEG", (7000, 7100), 1, {"progressive": True}),
    "screenshot": ("PNG", (7000, 7100), 1, {"compress_level": 1}),
    "panorama": ("PNG", (65_535, 760), 1, {"compress_level": 1}),
    "very thin one": ("PNG", (1, 49_000_000), 1, {}),
    "AVIF": ("AVIF", (7000, 7100), 1, {"speed": 10}),
    "GIF that moves": ("GIF", (1000, 1000), 49, {}),
    "WebP that moves": ("WEBP", (1000, 1000), 49, {"method": 0}),
}


def main() -> int:
    peaks = [int(run("measure", name)) for name in PICTURES]
    for name, peak in zip(PICTURES, peaks, strict=True):
        print(f"{name}: {peak} MB more than before")
    print(f"At most {max(peaks)} MB (required: {MEMORY_MAX} MB)")
    return max(peaks) > MEMORY_MAX


def run(*arguments: str) -> str:
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, capture_output=True, check=True, cwd=PROJECT).stdout.decode()


def made(name: str) -> bytes:
    """Return the bytes of a picture, which a process of its own makes: this one's peak is to be measured."""
    form, (width, height), frames, how = PICTURES[name]
    mode = "1" if min(width, height) == 1 else "RGB"
    image = Image.effect_noise((min(width, 875), min(height, 875)), 60).convert(mode).resize((width, height))
    turned = Image.Exif()
    turned[0x0112] = 6
    if frames > 1:
        how |= {"save_all": True, "append_images": [image.rotate(7 * place) for place in range(1, frames)]}
    content = io.BytesIO()
    image.save(content, form, **how, **({"exif": turned} if form == "JPEG" else {}))
    return content.getvalue()


def measure(name: str) -> None:
    """Print by how many MB the peak of this process grows while a picture is read as an upload is."""
    import resource

    content = subprocess.run([sys.executable, __file__, "make", name], capture_output=True, check=True).stdout
    sys.path.insert(0, str(PROJECT))
    import app

    unit = 2**20 if sys.platform == "darwin" else 2**10
    app.store_versions = lambda name, *_: name  # type: ignore[assignment]
    before, ending = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, PICTURES[name][0].lower()
    try:
        app.store_picture(io.BytesIO(content), f"a.{ending}", ending)
    except app.ValidationError as refused:
        print(refused.message, file=sys.stderr)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // unit)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", name]:
            sys.stdout.buffer.write(made(name))
        case ["measure", name]:
            measure(name)
        case _:
            sys.exit(main())
