"""Files: who may see them, how they are sent, what is kept of a picture, and what a crash or a full disk leaves."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import re
import shutil
import struct
import time
import zlib
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import PASSWORD, REQUIRE_ALL, add_comment, add_post, edit_post
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence
from sqlalchemy.exc import OperationalError
from werkzeug.datastructures import FileStorage

import app as corkboard
import database
from app import (
    Activity,
    Attachment,
    Comment,
    Forbidden,
    NotVisible,
    Post,
    StoredFile,
    files_folder,
    render_markdown,
    tidy_filename,
)
from database import db

pytestmark = pytest.mark.usefixtures("cheap_hashes", "no_files")

RED, BLUE = (200, 30, 30), (30, 30, 200)


@pytest.fixture
def no_files(request):
    """An empty folder for the files of each test that has an application."""
    if "app" in request.fixturenames:
        request.getfixturevalue("app")
        for path in (*stored_files(), *corkboard.trash_folder().glob("*")):
            path.unlink()


def stored_files() -> list[Any]:
    return sorted(path for path in files_folder().rglob("*") if path.is_file())


def picture(size=(60, 40), form="PNG", mode="RGB", color: Any = RED, **how: Any) -> bytes:
    made = BytesIO()
    Image.new(mode, size, color).save(made, form, **how)
    return made.getvalue()


def photo() -> bytes:
    """What a phone makes of something 60 wide and 40 high, red at its left: turned, with place, device and comment."""
    shown = Image.new("RGB", (60, 40), BLUE)
    shown.paste(RED, (0, 0, 30, 40))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "SecretPhone"  # turn it by 90° to the right; who made it
    exif.get_ifd(0x8825)[1] = "N"
    made = BytesIO()
    turned = shown.transpose(Image.Transpose.ROTATE_90)
    turned.save(made, "JPEG", exif=exif, comment=b"SecretComment", xmp=b"<x:xmpmeta>SecretPlace</x:xmpmeta>")
    return made.getvalue()


def upload(browser, content: bytes, name: str):
    return browser.submit("/files", {"upload": (BytesIO(content), name)})


def uploaded(browser, content: bytes, name: str) -> Any:
    """The row of a file that is uploaded now."""
    answer = upload(browser, content, name)
    assert answer.status_code == 200, answer.text
    return rows_of(int(re.search(r'value="(\d+)"', answer.text)[1]))[0]  # type: ignore[index]


def rows_of(*ids: int) -> list[Any]:
    db.session.rollback()
    wanted = sa.select(Attachment.__table__).order_by(Attachment.id)
    with db.engine.connect() as connection:
        return list(connection.execute(wanted.where(Attachment.id.in_(ids)) if ids else wanted))


def address(file: Any) -> str:
    return Attachment(id=file.id, name=file.name).url


def bound(browser, topic, *ids: int, **typed: Any) -> int:
    """A new post with files. Returns its id."""
    form = {"title": "With files", "body": "Look", "topic": topic.id, "attached": [*ids]} | typed
    answer = browser.submit("/posts/new", form)
    assert answer.status_code == 303, answer.text
    return int(answer.location.rpartition("/")[2])


# -- Who may see them --------------------------------------------------------------------------------------------------


def test_a_file_of_nothing_yet_is_its_uploaders_alone(people, sign_in):
    file = uploaded(sign_in(people.member), b"words", "notes.txt")
    seen = {name: sign_in(who).get(address(file), buffered=True).status_code for name, who in vars(people).items()}
    assert seen == {"reader": 404, "member": 200, "editor": 404, "admin": 404, "stranger": 404}
    assert sign_in().get(address(file)).location.startswith("/login?next=/files/")


def test_a_file_is_seen_with_its_post_and_no_longer_when_that_is_deleted(people, topics, sign_in):
    member = sign_in(people.member)
    file = uploaded(member, b"words", "notes.txt")
    post_id = bound(member, topics.private, file.id)
    assert sign_in(people.reader).get(address(file), buffered=True).data == b"words"
    assert sign_in(people.stranger).get(address(file)).status_code == 404
    Post.delete(people.member, post_id)
    assert member.get(address(file)).status_code == 404
    assert member.submit(f"/files/{file.id}/delete").status_code == 404


def test_a_picture_in_a_comment_is_seen_with_it(people, topics, sign_in):
    member, post = sign_in(people.member), add_post(people.member, topics.private)
    file = uploaded(member, picture(), "a.png")
    said = f"See ![a]({address(file)})"
    member.submit(f"/posts/{post.id}/comments", {"body": said})
    (row,) = rows_of(file.id)
    comment = db.session.scalar(sa.select(Comment))
    assert row.comment_id == comment.id
    assert f'<img src="{address(file)}" alt="a" width="60" height="40" loading="lazy">' in comment.html
    assert sign_in(people.reader).get(address(file), buffered=True).status_code == 200
    assert sign_in(people.stranger).get(address(file)).status_code == 404
    Comment.delete(people.member, comment.id)
    assert sign_in(people.reader).get(address(file)).status_code == 404


def test_a_comment_that_is_edited_takes_its_new_picture(people, topics, sign_in):
    comment = add_comment(people.member, add_post(people.member, topics.open))
    file = uploaded(sign_in(people.member), picture(), "a.png")
    Comment.edit(people.member, comment.id, body=f"![a]({address(file)})")
    assert rows_of(file.id)[0].comment_id == comment.id


def test_nobody_takes_anothers_file_for_their_post(people, topics, sign_in):
    file = uploaded(sign_in(people.member), picture(), "a.png")
    post_id = bound(sign_in(people.stranger), topics.open, file.id, body=f"![a]({address(file)})")
    assert rows_of(file.id)[0].post_id is None
    html = sign_in(people.stranger).get(f"/posts/{post_id}").text
    assert 'width="60"' not in html, "the size of what one may not see"


def test_a_file_answers_to_its_own_name_only(people, sign_in):
    member = sign_in(people.member)
    file = uploaded(member, b"%PDF-1.4", "plan.pdf")
    assert member.get(f"/files/{file.id}/invoice.pdf").status_code == 404


def test_a_file_that_is_gone_from_the_disk_is_404(people, sign_in):
    member = sign_in(people.member)
    file = uploaded(member, b"words", "notes.txt")
    corkboard.stored_path(file.stored).unlink()
    assert member.get(address(file)).status_code == 404


# -- How they are sent -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "content", "kind", "disposition"), [
    ("a.png", picture(), "image/png", "inline"), ("a.JPG", picture(form="JPEG"), "image/jpeg", "inline"),
    ("a.pdf", b"%PDF-1.4", "application/pdf", "inline"), ("a.txt", b"words", "application/octet-stream", "attachment"),
    ("a.docx", b"<script>", "application/octet-stream", "attachment"),
])  # fmt: skip
def test_only_pictures_and_pdf_are_shown_and_nothing_in_a_file_runs(people, sign_in, name, content, kind, disposition):
    member = sign_in(people.member)
    answer = member.get(address(uploaded(member, content, name)), buffered=True)
    assert answer.mimetype == kind
    assert answer.headers["Content-Disposition"].startswith(disposition)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "private, no-cache"
    (policy,) = answer.headers.getlist("Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert ("sandbox" in policy) == (kind != "application/pdf"), "no browser shows a PDF in a sandbox"


@pytest.mark.parametrize("name", ["a.svg", "a.html", "a.htm", "a.xhtml", "a.js", "a.exe", "a", "a.png.svg", "a.svgz"])
def test_what_a_browser_might_run_is_not_taken(people, sign_in, name):
    answer = upload(sign_in(people.member), b"<svg onload=alert(1)>", name)
    assert answer.status_code == 422
    assert "isn't accepted" in answer.text
    assert answer.mimetype == "text/plain"
    assert not rows_of()
    assert not stored_files()


BROKEN = [b"<svg onload=alert(1)>", b"<html><script>", b"GIF89a", b"\x89PNG\r\n\x1a\n", photo()[:400],
          picture(form="GIF")[:30], picture(form="WEBP")[:40], picture()[:50]]  # fmt: skip


@pytest.mark.parametrize("content", BROKEN)
def test_what_calls_itself_a_picture_and_is_none_is_not_taken(people, sign_in, content):
    answer = upload(sign_in(people.member), content, "a.png")
    assert answer.status_code == 422
    assert "can't be read as a picture. Save it as JPEG or PNG" in answer.text
    assert not stored_files()


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP", "JPEG", "AVIF"])
@pytest.mark.parametrize("ending", ["png", "gif", "webp", "jpg", "avif"])
def test_a_broken_picture_is_shown_or_refused_whatever_is_broken(people, sign_in, form, ending):
    member, whole, chance = sign_in(people.member), noisy((30, 20), form), random.Random(form + ending)
    for _ in range(20):
        content = bytearray(whole)
        for place in chance.sample(range(min(100, len(whole))), 4):
            content[place] = chance.randrange(256)
        assert upload(member, bytes(content), f"a.{ending}").status_code in (200, 422)


def test_a_part_of_a_file_can_be_asked_for(people, sign_in):
    member = sign_in(people.member)
    file = address(uploaded(member, b"0123456789", "notes.txt"))
    part = member.get(file, headers={"Range": "bytes=2-4"}, buffered=True)
    assert (part.status_code, part.data, part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    assert member.get(file, headers={"Range": "bytes=20-"}).status_code == 416


def test_what_a_browser_has_already_is_not_sent_again(people, sign_in):
    member = sign_in(people.member)
    file = uploaded(member, picture(), "a.png")
    for path in (address(file), f"/files/{file.id}/thumb"):
        first = member.get(path, buffered=True)
        again = member.get(path, headers={"If-None-Match": first.headers["ETag"]}, buffered=True)
        assert (again.status_code, again.data) == (304, b"")
        assert again.headers["Cache-Control"] == "private, no-cache"
    assert file.sha256 in member.get(address(file), buffered=True).headers["ETag"]
    assert sign_in(people.stranger).get(address(file), headers={"If-None-Match": "*"}).status_code == 404


def test_a_file_lies_under_a_random_name_and_its_hash_is_kept(people, sign_in):
    content = os.urandom(300_000)
    file = uploaded(sign_in(people.member), content, "Über.zip")
    (path,) = stored_files()
    assert re.fullmatch(r"[0-9a-f]{32}", path.name)
    assert path.parent.name == path.name[:2]
    assert path.read_bytes() == content
    assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


# -- Pictures ----------------------------------------------------------------------------------------------------------


def test_a_photo_is_turned_upright_and_tells_nothing_of_its_camera(people, sign_in):
    member = sign_in(people.member)
    file = uploaded(member, photo(), "photo.jpg")
    sent = member.get(address(file), buffered=True).data
    shown = Image.open(BytesIO(sent))
    assert shown.size == (file.width, file.height) == (60, 40)
    assert shown.getpixel((5, 20))[0] > 150 > shown.getpixel((5, 20))[2]
    assert not shown.getexif()
    assert b"Secret" in photo()
    assert b"Secret" not in sent + member.get(f"/files/{file.id}/thumb", buffered=True).data


@pytest.mark.parametrize(("form", "ending"), [("PNG", "png"), ("WEBP", "webp"), ("GIF", "gif"), ("JPEG", "jpeg")])
def test_no_kind_of_picture_keeps_what_was_noted_in_it(people, sign_in, form, ending):
    from PIL.PngImagePlugin import PngInfo

    noted = PngInfo()
    noted.add_text("Comment", "SecretComment")
    how = {"PNG": {"pnginfo": noted}, "GIF": {"comment": b"SecretComment"}, "JPEG": {"comment": b"SecretComment"}}
    exif = Image.Exif()
    exif[0x010F] = "SecretPhone"
    content = picture(form=form, **how.get(form, {}), **({} if form == "GIF" else {"exif": exif}))
    assert b"Secret" in content
    member = sign_in(people.member)
    assert b"Secret" not in member.get(address(uploaded(member, content, f"a.{ending}")), buffered=True).data


@pytest.mark.parametrize(("form", "ending"), [("GIF", "gif"), ("WEBP", "webp"), ("PNG", "png"), ("AVIF", "avif")])
def test_a_picture_that_moves_still_moves(people, sign_in, form, ending):
    made = BytesIO()
    frames = [Image.new("RGB", (20, 20), color) for color in (RED, BLUE, RED)]
    exif = Image.Exif()
    exif[0x010F] = "SecretPhone"
    noted = {"comment": b"Secret"} if form == "GIF" else {"exif": exif}
    frames[0].save(made, form, save_all=True, append_images=frames[1:], duration=100, loop=0, **noted)
    assert b"Secret" in made.getvalue()
    member = sign_in(people.member)
    sent = member.get(address(uploaded(member, made.getvalue(), f"a.{ending}")), buffered=True).data
    assert Image.open(BytesIO(sent)).n_frames == 3  # type: ignore[attr-defined]
    assert b"Secret" not in sent


def shown_frames(content: bytes) -> list[tuple[bytes, int]]:
    """What each frame of a picture shows, and for how long."""
    shown = []
    for frame in ImageSequence.Iterator(Image.open(BytesIO(content))):
        full = frame.convert("RGBA")
        seen = Image.composite(
            full, Image.new("RGBA", full.size), full.getchannel("A").point(lambda alpha: alpha and 255)
        )
        shown.append((seen.tobytes(), round(frame.info.get("duration", 0))))
    return shown


def drawn_over(form: str, disposal: int, **how: Any) -> bytes:
    """A picture of which each frame draws over a part only, and is put away in one of the ways that there are."""
    frames = []
    for place in range(4):
        frame = Image.new("RGBA", (24, 20))
        frame.paste((60 * place, 200, 255 - 60 * place, 255), (5 * place, 3 * place, 5 * place + 8, 3 * place + 8))
        frames.append(frame)
    made, times = BytesIO(), {"duration": [30, 500, 70, 1000], "loop": 3}
    frames[0].save(made, form, save_all=True, append_images=frames[1:], disposal=disposal, **times, **how)
    return made.getvalue()


@pytest.mark.parametrize("disposal", [0, 1, 2, 3])
@pytest.mark.parametrize(("form", "how"), [
    ("GIF", {}), ("PNG", {"blend": 0}), ("PNG", {"blend": 1}), ("WEBP", {"lossless": True, "quality": 100}),
])  # fmt: skip
def test_each_frame_shows_what_it_showed_for_as_long_and_as_often(people, sign_in, form, how, disposal):
    content = drawn_over(form, min(disposal, 2) if form == "PNG" else disposal, **how)
    member = sign_in(people.member)
    file = uploaded(member, content, f"a.{form.lower()}")
    sent = member.get(address(file), buffered=True)
    assert (file.name, sent.mimetype) == ("a.webp", "image/webp")
    assert Image.open(BytesIO(sent.data)).info["loop"] == 3
    before, after = shown_frames(content), shown_frames(sent.data)
    assert [long for _shown, long in after] == [long for _shown, long in before]
    if form != "WEBP":  # those are encoded again, as photos are
        assert [shown for shown, _long in after] == [shown for shown, _long in before]


def test_a_gif_that_plays_once_does_not_go_on_forever(people, sign_in):
    made = BytesIO()
    Image.new("L", (9, 9)).save(made, "GIF", save_all=True, append_images=[Image.new("L", (9, 9), 9)], duration=50)
    member = sign_in(people.member)
    sent = member.get(address(uploaded(member, made.getvalue(), "a.gif")), buffered=True).data
    assert Image.open(BytesIO(sent)).info["loop"] == 1


def test_an_avif_is_shown_and_keeps_what_is_transparent_in_it(people, topics, sign_in):
    exif = Image.Exif()
    exif[0x010F] = "SecretPhone"
    content = picture((60, 40), "AVIF", "RGBA", (0, 0, 0, 0), exif=exif)
    member = sign_in(people.member)
    file = uploaded(member, content, "Plan.avif")
    sent = member.get(address(file), buffered=True)
    assert (file.name, sent.mimetype, file.width, file.height) == ("Plan.webp", "image/webp", 60, 40)
    assert Image.open(BytesIO(sent.data)).getchannel("A").getextrema() == (0, 0)
    assert b"Secret" in content
    assert b"Secret" not in sent.data
    assert f"/files/{file.id}/thumb" in member.get(f"/posts/{bound(member, topics.open, file.id)}").text


@pytest.mark.parametrize("name", ["IMG_1.heic", "IMG_1.heif"])
def test_a_heic_is_shown_as_jpeg_with_the_extra_package_and_without_it_what_to_do_is_told(people, sign_in, name):
    content = b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(100)
    if "HEIF" in corkboard.PICTURES_READ:
        content = picture((60, 40), "HEIF")
        file = uploaded(sign_in(people.member), content, name)
        assert (file.name, file.ending, file.width) == ("IMG_1.jpeg", "jpeg", 60)
        return
    answer = upload(sign_in(people.member), content, name)
    assert answer.status_code == 422
    assert f"{name} can't be read as a picture. Save it as JPEG or PNG" in answer.text


@pytest.mark.parametrize("ending", ["jfif", "jpe", "JPG", "jpeg"])
def test_a_jpeg_may_have_each_of_its_endings(people, sign_in, ending):
    member = sign_in(people.member)
    file = uploaded(member, picture(form="JPEG"), f"a.{ending}")
    assert file.name == f"a.{ending.lower()}"
    assert member.get(address(file), buffered=True).mimetype == "image/jpeg"


def test_much_text_in_a_picture_is_left_out_and_no_reason_to_refuse_it(people, sign_in):
    from PIL.PngImagePlugin import PngInfo

    noted = PngInfo()
    for name in ("Description", "workflow"):
        noted.add_text(name, "Secret" * 400_000, zip=True)
        noted.add_itxt(name, "Secret" * 400_000, zip=True)
    member = sign_in(people.member)
    sent = member.get(address(uploaded(member, picture(pnginfo=noted), "a.png")), buffered=True).data
    assert Image.open(BytesIO(sent)).text == {}  # type: ignore[attr-defined]


def test_a_photo_with_a_second_picture_in_it_is_the_first_one(people, sign_in):
    made = BytesIO()
    Image.new("RGB", (60, 40), RED).save(made, "MPO", save_all=True, append_images=[Image.new("RGB", (60, 40), BLUE)])
    member = sign_in(people.member)
    file = uploaded(member, made.getvalue(), "a.jpg")
    sent = Image.open(BytesIO(member.get(address(file), buffered=True).data))
    assert (file.name, sent.format) == ("a.jpg", "JPEG")
    assert sent.getpixel((5, 5))[0] > 150  # type: ignore[index]


def test_sixteen_bits_of_grey_are_as_bright_in_the_small_version(people, sign_in):
    member = sign_in(people.member)
    file = uploaded(member, picture(mode="I;16", color=30_000), "a.png")
    small = Image.open(BytesIO(member.get(f"/files/{file.id}/thumb", buffered=True).data)).convert("L")
    assert small.getpixel((5, 5)) == pytest.approx(117, abs=3)


@pytest.mark.parametrize("size", [(960, 1), (1, 1200), (1920, 1), (1, 1), (1, 65_535), (65_535, 1)])
@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "1"])
def test_a_picture_may_be_as_thin_as_a_line(people, sign_in, size, mode):
    member = sign_in(people.member)
    for turned in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = turned
        file = uploaded(member, picture(size, mode=mode, color=None, exif=exif), "line.png")
        assert (file.width, file.height) == (size if turned == 1 else size[::-1])
        small = Image.open(BytesIO(member.get(f"/files/{file.id}/thumb", buffered=True).data)).size
        assert min(small) == 1
        assert max(small) <= 480


@pytest.mark.parametrize("size", [(1, 49_000_000), (49_000_000, 1), (1, 65_536), (70_000, 3)])
def test_a_side_has_a_limit_whatever_the_other_one_has(people, sign_in, size):
    content = picture(size, mode="1", color=None)
    assert len(content) < 100_000
    answer = upload(sign_in(people.member), content, "line.png")
    assert (answer.status_code, answer.text) == (422, "line.png has too many pixels or frames.")


def test_a_photo_whose_scans_would_take_hours_is_refused(people, sign_in):
    content = picture(form="JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    member = sign_in(people.member)
    assert upload(member, content[:-2] + last * 5 + content[-2:], "a.jpg").status_code == 200
    begun = time.process_time()
    assert upload(member, content[:-2] + last * 3_000 + content[-2:], "a.jpg").status_code == 422
    assert time.process_time() - begun < 5


def moving(frames: int) -> bytes:
    made = BytesIO()
    colors = [Image.new("L", (1, 1), number % 250) for number in range(frames)]
    colors[0].save(made, "GIF", save_all=True, append_images=colors[1:], duration=100)
    return made.getvalue()


def test_a_picture_that_moves_has_a_thousand_frames_at_most(people, sign_in, monkeypatch):
    monkeypatch.setattr(corkboard, "FRAMES_MOST", 5)
    member = sign_in(people.member)
    assert upload(member, moving(5), "a.gif").status_code == 200
    answer = upload(member, moving(6), "a.gif")
    assert (answer.status_code, "too many pixels or frames" in answer.text) == (422, True)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "I;16", "CMYK"])
def test_pictures_of_every_kind_of_color_are_taken(people, sign_in, mode):
    member = sign_in(people.member)
    inks = {"form": "JPEG", "color": (1, 2, 3, 4)} if mode == "CMYK" else {"color": 1}
    content = picture(mode=mode, **inks)
    for name in ("a.png", "a.jpg", "a.webp", "a.gif"):
        file = uploaded(member, content, name)
        sent = Image.open(BytesIO(member.get(address(file), buffered=True).data))
        assert sent.format == corkboard.PICTURES[file.ending]
        assert Image.open(BytesIO(member.get(f"/files/{file.id}/thumb", buffered=True).data)).format == "WEBP"


def test_a_picture_that_unpacks_to_a_huge_one_is_refused(people, sign_in):
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    for side in (7_500, 20_000, 60_000):
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
        answer = upload(sign_in(people.member), bomb, "a.png")
        assert answer.status_code == 422
        assert "too many pixels or frames" in answer.text
    assert not stored_files()


def test_the_small_version_is_small_and_shown_at_its_size(people, topics, sign_in):
    member = sign_in(people.member)
    file = uploaded(member, picture((1200, 300)), "wide.png")
    small = Image.open(BytesIO(member.get(f"/files/{file.id}/thumb", buffered=True).data))
    assert small.size == (480, 120)
    page = member.get(f"/posts/{bound(member, topics.open, file.id)}").text
    assert re.search(rf'<img src="/files/{file.id}/thumb"\s+alt="wide.png"\s+width="240"\s+height="60"', page)


# -- The size that texts show -----------------------------------------------------------------------------------------


def noisy(size: tuple[int, int], form: str = "JPEG", **how: Any) -> bytes:
    """A picture of many bytes, like a photo; above 500 KB the client of the tests would leave a file open."""
    made = BytesIO()
    Image.effect_noise(size, 20).convert("RGB").save(made, form, **how)
    return made.getvalue()


def photo_from_a_phone() -> bytes:
    """1,800 wide and 900 high when it is turned as its camera says, which also says where."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "SecretPhone"
    return noisy((900, 1800), quality=60, exif=exif, comment=b"SecretComment")


def test_a_text_shows_a_large_picture_smaller_at_the_same_place_and_leads_to_all_of_it(people, topics, sign_in):
    member = sign_in(people.member)
    file = uploaded(member, photo_from_a_phone(), "photo.jpg")
    assert (file.width, file.height) == (1800, 900)
    post_id = bound(member, topics.private, body=f"![Hall B]({address(file)})")
    shown = f'<img src="/files/{file.id}/medium" alt="Hall B" width="1800" height="900" loading="lazy">'
    assert f'<a href="{address(file)}" rel="noopener noreferrer">{shown}</a>' in member.get(f"/posts/{post_id}").text
    whole = sign_in(people.reader).get(address(file), buffered=True)
    sent = sign_in(people.reader).get(f"/files/{file.id}/medium", buffered=True)
    image = Image.open(BytesIO(sent.data))
    assert (image.format, image.size, sent.mimetype) == ("WEBP", (1600, 800), "image/webp")
    assert len(sent.data) < len(whole.data)
    assert b"Secret" not in sent.data
    assert not image.getexif()
    assert sign_in(people.stranger).get(f"/files/{file.id}/medium").status_code == 404
    Post.delete(people.member, post_id)
    assert sign_in(people.reader).get(f"/files/{file.id}/medium").status_code == 404


def test_the_size_that_texts_show_is_sent_like_the_picture_itself(people, sign_in):
    member = sign_in(people.member)
    file = uploaded(member, noisy((1700, 100)), "a.jpg")
    first = member.get(f"/files/{file.id}/medium", buffered=True)
    assert first.headers["ETag"] != member.get(address(file), buffered=True).headers["ETag"]
    again = member.get(f"/files/{file.id}/medium", headers={"If-None-Match": first.headers["ETag"]}, buffered=True)
    assert (again.status_code, again.data, again.headers["Cache-Control"]) == (304, b"", "private, no-cache")
    part = member.get(f"/files/{file.id}/medium", headers={"Range": "bytes=2-4"}, buffered=True)
    assert (part.status_code, part.data) == (206, first.data[2:5])
    assert first.headers["Content-Security-Policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(("content", "name"), [
    (noisy((1600, 40)), "a.jpg"),  # no larger than that
    (moving(3), "moving.gif"),
])  # fmt: skip
def test_a_picture_that_would_not_gain_is_shown_itself(people, sign_in, monkeypatch, content, name):
    if name == "moving.gif":
        monkeypatch.setattr(corkboard, "MEDIUM_PIXELS", 0)
    member = sign_in(people.member)
    file = uploaded(member, content, name)
    assert [path.suffix for path in stored_files()] == ["", ".thumb"]
    whole, sent = member.get(address(file), buffered=True), member.get(f"/files/{file.id}/medium", buffered=True)
    assert (sent.data, sent.mimetype, sent.headers["ETag"]) == (whole.data, whole.mimetype, whole.headers["ETag"])


def test_a_picture_from_before_is_shown_as_it_is(people, topics, sign_in):
    member = sign_in(people.member)
    file = uploaded(member, noisy((1700, 100)), "a.jpg")
    corkboard.stored_path(file.stored, ".medium").unlink()
    sent = member.get(f"/files/{file.id}/medium", buffered=True)
    assert (sent.mimetype, sent.data) == ("image/jpeg", member.get(address(file), buffered=True).data)


def test_no_size_is_left_over(people, topics, sign_in, monkeypatch, empty_folder):
    member = sign_in(people.member)
    write = corkboard.write_file

    def no_room_for_the_last(content, path):
        if path.suffix == ".thumb":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(content, path)

    monkeypatch.setattr(corkboard, "write_file", no_room_for_the_last)
    assert upload(member, noisy((1700, 100)), "b.jpg").status_code == 507
    assert not stored_files()
    path = corkboard.stored_path("ab" * 16, ".medium")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"what a crash left")
    os.utime(path, (0, 0))
    monkeypatch.undo()
    uploaded(member, b"Known", "a.txt")  # a database that names no file at all prunes none
    assert Attachment.prune() == 1
    assert not path.exists()


@pytest.mark.parametrize("size", [(1601, 2), (2, 1601), (1600, 1600)])
def test_only_a_large_picture_is_shown_smaller_and_sanitising_it_again_changes_nothing(size):
    html = render_markdown("[![a](/files/7/a.png)](/posts/1) ![a](/files/7/a.png) ![](/files/7/a.png)", {7: size})
    assert html.count('src="/files/7/medium"') == (3 if max(size) > 1600 else 0)
    assert html.count('href="/files/7/a.png"') == 1
    assert corkboard.SANITIZER.clean(html) == html


# -- Names -------------------------------------------------------------------------------------------------------------

ODD = st.sampled_from([*"/\\:*?\"<>|.% \u202e\u200f\u2066\ufeff\x00\n\x85\u0301e😀é", "con", "NUL", "COM1", "..",
                       ".png", "👩\u200d🔧", "İ", "ß", "\ud800"])  # fmt: skip


@hypothesis_settings(max_examples=5000 if REQUIRE_ALL else 300, deadline=None, database=None)
@given(st.lists(ODD | st.characters(), max_size=40).map("".join))
@example("../../etc/passwd.txt")
@example("C:\\temp\\Plan.PDF")
@example("con.txt")
@example("x" * 400 + ".txt")
@example("😀" * 100 + ".jpeg")
@example("invoice\u202egpj.pdf")
@example(" . .png")
@example("A\x1f\u0301.txt")
def test_a_name_can_be_saved_anywhere_and_looks_like_what_it_is(given_name):
    name = tidy_filename(given_name)
    assert tidy_filename(name) == name
    assert 0 < len(name.encode()) <= 255
    assert not re.search(r'[/\\:*?"<>|\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]', name)
    assert not name.startswith((".", " "))
    assert not name.endswith((".", " "))
    assert not re.match(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", name, re.IGNORECASE)
    assert name == name.strip()


@pytest.mark.parametrize(("given_name", "name"), [
    ("Plan.PDF", "Plan.pdf"), ("C:\\temp\\a b.txt", "a b.txt"), ("../x.png", "x.png"), ("con.txt", "_con.txt"),
    (".txt", "txt"), ("a\u202egpj.pdf", "agpj.pdf"), ("a:b?.txt", "a_b_.txt"), ("e\u0301.txt", "é.txt"),
    (None, "file"), ("👩\u200d🔧.png", "👩\u200d🔧.png"), ("archive.tar.gz", "archive.tar.gz"),
    ("x" * 300 + ".txt", "x" * 250 + ".txt"),
])  # fmt: skip
def test_a_name_is_tidied(given_name, name):
    assert tidy_filename(given_name) == name


@pytest.mark.parametrize(
    "name", ["a b (1) [x].png", "100%.png", "Größe ☂ 😀.png", "a&b#c;d'e+f.png", "_con.png", "日本.png"]
)
def test_a_file_of_any_name_is_found_at_its_address_and_shown_in_a_text(people, topics, sign_in, name):
    member = sign_in(people.member)
    file = uploaded(member, picture(), name)
    assert file.name == name
    assert member.get(address(file), buffered=True).status_code == 200
    view = Attachment(id=file.id, name=file.name, width=file.width)
    post_id = bound(member, topics.open, body=f"Before {view.markdown} after")
    html = db.session.scalar(sa.select(Post.html).where(Post.id == post_id))
    assert f'src="{view.url}"' in html
    assert f'alt="{corkboard.html.escape(name, quote=False)}"' in html.replace("&#39;", "'")


# -- In posts ----------------------------------------------------------------------------------------------------------


def test_files_come_along_with_the_form_where_there_is_no_script(people, topics, sign_in):
    member = sign_in(people.member)
    given_files = [(BytesIO(picture()), "a.png"), (BytesIO(b"words"), "notes.txt")]
    post_id = bound(member, topics.open, upload=given_files)
    assert [row.post_id for row in rows_of()] == [post_id, post_id]
    page = sign_in(people.reader).get(f"/posts/{post_id}").text
    assert "notes.txt" in page
    assert "5 bytes" in page
    assert f"/files/{rows_of()[0].id}/thumb" in page
    assert "Remove" not in page
    assert member.get(f"/posts/{post_id}").text.count("Remove <span") == 2


def test_a_form_that_comes_back_keeps_what_was_uploaded_and_what_was_typed(people, topics, sign_in):
    member = sign_in(people.member)
    typed = {"title": "", "body": "An hour of words", "topic": topics.open.id}
    answer = member.submit("/posts/new", typed | {"upload": (BytesIO(b"words"), "notes.txt")})
    assert answer.status_code == 422
    (file,) = rows_of()
    assert re.search(rf'name="attached"\s+value="{file.id}"', answer.text)
    assert "An hour of words" in answer.text
    assert bound(member, topics.open, file.id) == rows_of()[0].post_id


def test_a_file_that_is_refused_is_told_beside_the_field_and_nothing_is_lost(people, topics, sign_in):
    member = sign_in(people.member)
    typed = {"title": "T", "body": "An hour of words", "topic": topics.open.id}
    sent = [(BytesIO(b"x"), "run.exe"), (BytesIO(b"words"), "notes.txt"), (BytesIO(b""), "empty.txt")]
    answer = member.submit("/posts/new", typed | {"upload": sent})
    assert answer.status_code == 422
    assert "run.exe: this type of file isn&#39;t accepted." in answer.text
    assert "empty.txt is empty." in answer.text
    assert "An hour of words" in answer.text
    assert [row.name for row in rows_of()] == ["notes.txt"]
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Post)) == 0


def test_of_several_files_the_good_ones_are_taken_and_each_bad_one_is_named(people, topics, sign_in):
    sent = [(picture(), "a.png"), (b"x", "run.exe"), (b"words", "b.txt"), (b"no picture", "c.png"), (b"", "d.txt"),
            (b"words", "e.txt")]  # fmt: skip
    member, form = sign_in(people.member), {"title": "T", "body": "An hour of words", "topic": topics.open.id}
    answer = member.submit("/posts/new", form | {"upload": [(BytesIO(content), name) for content, name in sent]})
    assert answer.status_code == 422
    assert [row.name for row in rows_of()] == ["a.png", "b.txt", "e.txt"]
    (told,) = re.findall(r'(?s)id="upload-error".*?<span>(.*?)</span>', answer.text)
    assert [name for _content, name in sent if name in told] == ["run.exe", "c.png", "d.txt"]
    attached = re.findall(r'name="attached"\s+value="(\d+)"', answer.text)
    assert bound(member, topics.open, *attached) == rows_of()[-1].post_id


def test_of_more_files_than_a_form_takes_those_that_were_not_taken_are_named(people, topics, sign_in, monkeypatch):
    monkeypatch.setattr("app.FILES_MOST", 5)
    member, form = sign_in(people.member), {"title": "T", "body": "An hour of words", "topic": topics.open.id}
    sent = [(BytesIO(b"words"), f"{number}-of-8.txt") for number in range(1, 9)]
    answer = member.submit("/posts/new", form | {"upload": sent})
    assert answer.status_code == 422
    assert len(rows_of()) == 5
    assert "A form takes 5 files at once. Add these again: 6-of-8.txt, 7-of-8.txt, 8-of-8.txt." in answer.text
    assert "An hour of words" in answer.text
    attached = re.findall(r'name="attached"\s+value="(\d+)"', answer.text)
    rest = [(BytesIO(b"words"), f"{number}-of-8.txt") for number in range(6, 9)]
    post_id = bound(member, topics.open, *attached, upload=rest)
    assert [row.post_id for row in rows_of()] == [post_id] * 8, "all of them, in two rounds"


def test_a_text_keeps_every_file_that_it_names(people, topics, sign_in):
    member = sign_in(people.member)
    stored = [StoredFile(f"{number}.txt", "txt", 5, "0" * 64, f"{number:032}") for number in range(250)]
    ids = [Attachment.create(people.member, file).id for file in stored]
    bound(member, topics.open, body="\n".join(f"![a](/files/{number}/a.png)" for number in ids))
    assert all(row.post_id for row in rows_of())


def test_a_form_of_more_files_than_anybody_adds_still_says_so(people, topics, sign_in, monkeypatch):
    monkeypatch.setattr("app.FILES_MOST", 0)
    sent = [(BytesIO(b"x"), f"{number}.txt") for number in range(1200)]
    form = {"title": "T", "body": "An hour of words", "topic": topics.open.id, "upload": sent}
    with sign_in(people.member).submit("/posts/new", form) as answer:
        assert answer.status_code == 422
        assert "1199.txt" in answer.text
        assert "An hour of words" in answer.text


def test_a_picture_that_the_text_shows_is_not_listed_again_below_it(people, topics, sign_in):
    member = sign_in(people.member)
    file = uploaded(member, picture(), "a.png")
    post_id = bound(member, topics.open, file.id, body=f"![a]({address(file)})")
    page = member.get(f"/posts/{post_id}").text
    assert f'<img src="{address(file)}" alt="a" width="60" height="40" loading="lazy">' in page
    assert "/thumb" not in page
    member.submit(f"/posts/{post_id}/edit", {"title": "T", "body": "No more", "topic": topics.open.id, "version": "1"})
    assert f"/files/{file.id}/thumb" in member.get(f"/posts/{post_id}").text


def test_files_are_added_to_a_post_without_a_new_version(people, topics, sign_in):
    member, post = sign_in(people.member), add_post(people.member, topics.open, "T", body="B")
    typed = {"title": "T", "body": "B", "topic": topics.open.id, "version": "1"}
    member.get(f"/posts/{post.id}")
    answer = member.submit(f"/posts/{post.id}/edit", typed | {"upload": (BytesIO(b"words"), "notes.txt")})
    assert answer.status_code == 303
    assert "notes.txt" in member.get(f"/posts/{post.id}").text
    db.session.rollback()
    assert db.session.scalar(sa.select(Post.version)) == 1


def test_a_removed_file_comes_back_with_undo(people, topics, sign_in):
    member = sign_in(people.member)
    file = uploaded(member, b"words", "notes.txt")
    post_id = bound(member, topics.open, file.id)
    assert member.submit(f"/files/{file.id}/delete").location == f"/posts/{post_id}"
    page = member.get(f"/posts/{post_id}").text
    assert f'formaction="/files/{file.id}/restore"' in page
    assert 'class="files"' not in page
    assert member.get(address(file)).status_code == 404
    member.submit(f"/files/{file.id}/restore")
    assert "notes.txt" in member.get(f"/posts/{post_id}").text
    assert member.get(address(file), buffered=True).data == b"words"


def test_whoever_may_not_change_the_post_removes_nothing_of_it(people, topics, sign_in):
    file = uploaded(sign_in(people.editor), b"words", "notes.txt")
    bound(sign_in(people.editor), topics.private, file.id)
    with pytest.raises(Forbidden):
        Attachment.delete(people.member, file.id)
    with pytest.raises(NotVisible):
        Attachment.delete(people.stranger, file.id)
    assert rows_of(file.id)[0].deleted_at is None


@pytest.mark.parametrize("source", [
    "![x](https://evil.example/p.png)", "![x](//evil.example/files/1/p.png)", "![x](/posts/1)",
    "![x](/files/1/../../x)",
    '![x](/files/1/a.png "t")', "![x](/files/x/a.png)", "![x][y]\n\n[y]: /files/1/a.png", "![x](/files/1/thumb?x)",
])  # fmt: skip
def test_no_picture_but_our_own_is_shown(source):
    assert "<img" not in render_markdown(source)


def test_a_picture_of_ours_is_shown_with_its_words_as_they_are():
    shown = '<img src="/files/1/a.png" alt="a &quot;b&quot; &lt;c&gt;" width="3" height="2" loading="lazy">'
    assert shown in render_markdown('![a "b" <c>](/files/1/a.png)', {1: (3, 2)})
    assert '<img src="/files/2/a.png" alt="a" loading="lazy">' in render_markdown("![a](/files/2/a.png)")


def test_a_picture_leads_to_itself_unless_it_is_a_link_or_has_no_words():
    own, shown = (
        '<a href="/files/2/a.png" rel="noopener noreferrer">',
        '<img src="/files/2/a.png" alt="a" loading="lazy">',
    )
    assert render_markdown("![a](/files/2/a.png)") == f"<p>{own}{shown}</a></p>\n"
    linked = render_markdown("[![a](/files/2/a.png)](/posts/1) ![a](/files/2/a.png)")
    assert re.fullmatch(rf'<p><a href="/posts/1"[^>]*>{shown}</a> {own}{shown}</a></p>\n', linked)
    assert "<a" not in render_markdown("![](/files/2/a.png)")


def test_pictures_that_follow_each_other_are_a_gallery_and_a_picture_among_words_is_not():
    one, two = "![a](/files/1/a.png)", "![b](/files/2/b.png)"
    for source in (f"{one}\n\n{two}", f"{one}\n{two}", f"{one} {two}"):
        shown = render_markdown(f"Words\n\n{source}\n\nwords")
        assert re.fullmatch(
            r'<p>Words</p>\n<p class="gallery">(<a [^>]*><img [^>]*></a> ?){2}</p>\n<p>words</p>\n', shown
        )
        assert corkboard.SANITIZER.clean(shown) == shown
    for source in (one, f"{one}\n\nwords\n\n{two}", f"See {one} {two}", f"- {one}\n- {two}"):
        assert "gallery" not in render_markdown(source)


def test_many_beginnings_of_pictures_are_read_in_time():
    begun = time.process_time()
    with contextlib.suppress(corkboard.ValidationError):  # "too complex"
        render_markdown("![" * 5_000 + "![a](/files/1/" * 1_000)
    assert time.process_time() - begun < 5


def test_a_form_whose_token_is_lost_uploads_nothing(people, topics, sign_in):
    typed = {"title": "T", "body": "An hour of words", "topic": topics.open.id, "csrf_token": "another"}
    sent = typed | {"upload": (BytesIO(b"words"), "notes.txt")}
    answer = sign_in(people.member).post("/posts/new", data=sent, headers={"Origin": "http://localhost"})
    assert answer.status_code == 400
    assert "An hour of words" in answer.text
    assert not rows_of()
    assert not stored_files()


def test_two_who_save_at_once_keep_what_the_second_uploaded(people, topics, sign_in):
    member, post = sign_in(people.member), add_post(people.member, topics.open)
    edit_post(people.editor, post, title="Theirs", body="Theirs")
    typed = {"title": "Mine", "body": "Mine", "topic": topics.open.id, "version": "1"}
    answer = member.submit(f"/posts/{post.id}/edit", typed | {"upload": (BytesIO(b"words"), "notes.txt")})
    assert answer.status_code == 409
    assert re.search(rf'name="attached"\s+value="{rows_of()[0].id}"', answer.text)


# -- Pictures of people ------------------------------------------------------------------------------------------------

PROFILE = {"name": "Reader", "email": "", "stand_in_id": "", "current": PASSWORD}


def test_a_picture_of_oneself_stands_wherever_the_initials_stood(people, topics, sign_in):
    reader, member = sign_in(people.reader), sign_in(people.member)
    post = add_post(people.member, topics.open)
    add_comment(people.member, post)
    Post.pin(people.editor, post.id, False)
    pages = ["/", f"/posts/{post.id}", "/people", "/people/member", "/topics/everyone"]
    before = [reader.get(page).text for page in pages]
    typed = PROFILE | {"name": "Member", "upload": (BytesIO(photo()), "me.jpg")}
    assert member.submit("/account", typed).status_code == 303
    (file,) = rows_of()
    assert (file.person_id, file.width, file.height) == (people.member.id, 128, 128)
    shown = f'src="/files/{file.id}/picture.webp"'
    for page, old in zip(pages, before, strict=True):
        assert shown not in old
        assert shown in reader.get(page).text, page
    sent = member.get(f"/files/{file.id}/picture.webp", buffered=True)
    assert Image.open(BytesIO(sent.data)).size == (128, 128)
    assert b"Secret" not in sent.data


def test_a_picture_of_oneself_is_replaced_removed_and_brought_back(people, sign_in):
    reader = sign_in(people.reader)
    for color in (RED, BLUE):
        typed = PROFILE | {"upload": (BytesIO(picture(color=color)), "me.png")}
        assert reader.submit("/account", typed).status_code == 303
    first, second = rows_of()
    assert first.deleted_at
    assert f"/files/{second.id}/picture.webp" in reader.get("/people").text
    assert reader.submit(f"/files/{second.id}/delete").status_code == 303
    assert "/picture.webp" not in reader.get("/people").text
    assert reader.submit(f"/files/{first.id}/restore").status_code == 303
    assert f"/files/{first.id}/picture.webp" in reader.get("/people").text
    reader.submit(f"/files/{second.id}/restore")
    assert f"/files/{second.id}/picture.webp" in reader.get("/people").text, "the newest one counts"
    assert sign_in(people.admin).submit(f"/files/{second.id}/delete").status_code == 303
    assert reader.submit(f"/files/{second.id}/restore").status_code == 403, "what an administrator took away"


def test_a_picture_of_oneself_that_is_none_is_told_beside_its_field(people, sign_in):
    reader = sign_in(people.reader)
    answer = reader.submit("/account", PROFILE | {"title": "Baker", "upload": (BytesIO(b"<svg>"), "me.svg")})
    assert answer.status_code == 422
    assert "me.svg can&#39;t be read as a picture" in answer.text
    assert 'value="Baker"' in answer.text
    assert not rows_of()
    assert not stored_files()


# -- A full disk, a crash, what nobody needs ---------------------------------------------------------------------------


@pytest.fixture
def full_disk(monkeypatch):
    def refuse(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    return lambda: monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.parametrize(("content", "name"), [(b"words", "notes.txt"), (picture(), "a.png")])
def test_a_full_disk_is_told_in_plain_words_and_leaves_nothing(people, topics, sign_in, full_disk, content, name):
    full_disk()
    member = sign_in(people.member)
    answer = upload(member, content, name)
    assert answer.status_code == 507
    assert f"The server's disk is full, so {name} wasn't saved." in answer.text
    typed = {"title": "T", "body": "An hour of words", "topic": topics.open.id, "upload": (BytesIO(content), name)}
    answer = member.submit("/posts/new", typed)
    assert answer.status_code == 422
    assert f"disk is full, so {name} wasn&#39;t saved." in answer.text
    assert "An hour of words" in answer.text
    assert not rows_of()
    assert not stored_files()


@pytest.fixture
def no_folder():
    """A data folder in which no file can be written, whoever runs the tests: a file is in the folder's place."""
    shutil.rmtree(files_folder(), ignore_errors=True)
    files_folder().write_bytes(b"")
    yield
    files_folder().unlink()


@pytest.mark.parametrize(("content", "name"), [(b"words", "notes.txt"), (picture(), "a.png")])
def test_a_folder_that_cannot_be_written_to_is_told_in_plain_words(people, topics, sign_in, no_folder, content, name):
    member = sign_in(people.member)
    words = f"The server can't write to its folder for files, so {name} wasn't saved. Tell an administrator"
    answer = upload(member, content, name)
    assert answer.status_code == 507
    assert words in answer.text
    typed = {"title": "T", "body": "An hour of words", "topic": topics.open.id, "upload": (BytesIO(content), name)}
    answer = member.submit("/posts/new", typed)
    assert answer.status_code == 422
    assert str(corkboard.escape(words)) in answer.text
    assert "An hour of words" in answer.text
    assert not rows_of()


def test_a_profile_keeps_what_was_typed_where_its_picture_cannot_be_written(people, sign_in, no_folder):
    typed = PROFILE | {"title": "Baker", "upload": (BytesIO(picture()), "me.png")}
    answer = sign_in(people.reader).submit("/account", typed)
    assert answer.status_code == 422
    assert "picture.webp wasn&#39;t saved" in answer.text
    assert 'value="Baker"' in answer.text


def test_a_disk_that_is_full_while_a_file_arrives_is_told_on_a_page(app, people, sign_in, monkeypatch):
    def no_room(*_arguments, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    member = sign_in(people.member)
    member.get("/posts/new")
    monkeypatch.setattr("werkzeug.formparser.default_stream_factory", no_room)
    monkeypatch.setattr(app.request_class, "_get_file_stream", no_room)
    answer = member.submit("/files", {"upload": (BytesIO(b"words"), "notes.txt")})
    assert answer.status_code == 507
    assert "The server&#39;s disk is full" in answer.text


def test_check_finds_a_folder_that_cannot_be_written_to_and_files_that_are_gone(app, people, sign_in):
    def said() -> str:
        return app.test_cli_runner().invoke(args=["check"]).output

    files = [uploaded(sign_in(people.member), b"words", f"{name}.txt") for name in "ab"]
    assert "ok      files: 2 files" in said()
    corkboard.stored_path(files[0].stored).unlink()
    assert "FAILED  files: 1 of those that the database names are not in" in said()
    assert "Is DATA_DIR right?" in said()
    shutil.rmtree(files_folder())
    files_folder().mkdir()
    (files_folder() / "ab").write_bytes(b"")
    assert f"FAILED  files: {files_folder() / 'ab'} can't be written to" in said()
    (files_folder() / "ab").unlink()


def test_a_crash_between_file_and_row_leaves_a_file_that_is_pruned_when_it_is_old(people, sign_in, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(Activity, "record", lambda *_: (_ for _ in ()).throw(OperationalError("x", None, Exception())))
        broken.setattr(corkboard, "answer_database_error", corkboard.answer_crash)
        with pytest.raises(OperationalError):
            Attachment.create(people.member, corkboard.store_upload(FileStorage(BytesIO(picture()), "a.png")))
    assert not rows_of()
    lost = stored_files()
    assert len(lost) == 2
    assert Attachment.prune() == 0, "it may be on its way into the database"
    kept = uploaded(sign_in(people.member), picture(), "b.png")
    for path in stored_files():
        os.utime(path, (time.time() - 90_000,) * 2)
    stranger = files_folder() / "ab" / "README.txt"
    stranger.parent.mkdir(exist_ok=True)
    stranger.write_text("not ours", encoding="utf-8")
    os.utime(stranger, (0, 0))
    assert Attachment.prune() == 2
    assert {path.name for path in stored_files()} == {kept.stored, f"{kept.stored}.thumb", "README.txt"}


def test_a_pruned_file_waits_in_the_trash_for_a_month_and_comes_back_with_its_row(people, topics, sign_in):
    member, trash = sign_in(people.member), corkboard.trash_folder()
    kept, lost = uploaded(member, picture(), "a.png"), uploaded(member, picture(), "b.png")
    before = {path.name for path in stored_files()}
    row = {column.name: getattr(lost, column.name) for column in Attachment.__table__.columns}
    with db.engine.begin() as connection:
        connection.execute(sa.delete(Attachment).where(Attachment.id == lost.id))
    for path in stored_files():
        os.utime(path, (0, 0))
    assert Attachment.prune() == 2
    assert {path.name for path in trash.glob("*")} == {lost.stored, f"{lost.stored}.thumb"}
    assert corkboard.empty_trash() == 0, "it is a month from now, not from when the file was made"
    with db.engine.begin() as connection:  # as when yesterday's database is put back
        connection.execute(sa.insert(Attachment).values(row))
    assert Attachment.prune() == 2
    assert {path.name for path in stored_files()} == before
    with db.engine.begin() as connection:
        connection.execute(sa.delete(Attachment).where(Attachment.id == lost.id))
    for path in stored_files():
        os.utime(path, (0, 0))
    Attachment.prune()
    for path in trash.glob("*"):
        os.utime(path, (time.time() - 31 * 86_400,) * 2)
    assert corkboard.empty_trash() == 2
    assert not list(trash.glob("*"))
    assert {path.stem for path in stored_files()} == {kept.stored}


def test_a_file_that_cannot_be_moved_stays_where_it_is(people, sign_in, monkeypatch, caplog):
    uploaded(sign_in(people.member), picture(), "a.png")
    path = corkboard.stored_path("f" * 32)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"in use")
    os.utime(path, (0, 0))

    def refuse(*_):
        raise PermissionError("in use by another process")

    monkeypatch.setattr(corkboard.shutil, "move", refuse)
    assert Attachment.prune() == 0
    assert path.exists()
    assert "could not be moved" in caplog.text


def test_a_file_that_cannot_be_given_the_present_time_is_not_moved_to_where_old_ones_are_deleted(
    people, sign_in, monkeypatch
):
    uploaded(sign_in(people.member), picture(), "a.png")
    path = corkboard.stored_path("f" * 32)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"somebody else's, in a folder of ours")
    os.utime(path, (0, 0))

    def refuse(*_):
        raise PermissionError("not the owner")

    monkeypatch.setattr(os, "utime", refuse)
    corkboard.clean_up()
    assert path.exists()


def test_what_was_uploaded_and_never_saved_goes_after_a_month(people, topics, sign_in):
    member = sign_in(people.member)
    forgotten, saved = uploaded(member, b"words", "a.txt"), uploaded(member, b"words", "b.txt")
    bound(member, topics.open, saved.id)
    with db.engine.begin() as connection:
        connection.execute(sa.update(Attachment).values(created_at=database.utcnow() - timedelta(days=31)))
    for path in stored_files():
        os.utime(path, (0, 0))
    Attachment.prune()
    assert [row.id for row in rows_of()] == [saved.id]
    assert [path.name for path in stored_files()] == [saved.stored]
    assert (
        db.session.scalar(sa.select(Activity.object_id).where(Activity.action == "attachment.forgotten"))
        == forgotten.id
    )


def test_what_a_draft_names_that_keeps_itself_is_not_forgotten_while_it_waits(people, topics, sign_in):
    member = sign_in(people.member)
    named, other = uploaded(member, picture(), "plan.png"), uploaded(member, picture(), "other.png")
    typed = {"title": "Not yet", "body": f"![Plan]({address(named)})", "topic": topics.open.id}
    assert member.submit("/posts/autosave", typed).status_code == 200
    with db.engine.begin() as connection:
        connection.execute(sa.update(Attachment).values(created_at=database.utcnow() - timedelta(days=31)))
    for path in stored_files():
        os.utime(path, (0, 0))
    Attachment.prune()
    assert [row.id for row in rows_of()] == [named.id]
    assert member.get(address(named), buffered=True).data.startswith(b"\x89PNG")
    assert not [path for path in stored_files() if path.name.startswith(other.stored)]


def test_too_many_pictures_at_once_are_asked_to_wait(people, sign_in, monkeypatch):
    monkeypatch.setattr(corkboard, "PICTURE_WAIT_SECONDS", 0.01)
    with corkboard.picture_lock:
        assert "Try again in a minute" in upload(sign_in(people.member), picture(), "a.png").text
    assert upload(sign_in(people.member), picture(), "a.png").status_code == 200


def test_a_broken_picture_keeps_no_other_waiting(people, sign_in, monkeypatch):
    monkeypatch.setattr(corkboard, "PICTURE_WAIT_SECONDS", 0.01)
    for content in (b"", b"x", photo()[:300], picture()[:60]):
        assert upload(sign_in(people.member), content, "a.png").status_code == 422
    assert upload(sign_in(people.member), picture(), "a.png").status_code == 200


def test_a_file_of_the_size_that_the_page_names_is_taken_and_told_as_that_size(app, people, sign_in, monkeypatch):
    monkeypatch.setitem(app.config, "MAX_CONTENT_LENGTH", 400_000 + 64 * 1024)  # as config.py makes it of the setting
    member = sign_in(people.member)
    answer = upload(member, os.urandom(400_000), "a.zip")
    assert (answer.status_code, "391 KB" in answer.text) == (200, True)
    assert upload(member, os.urandom(400_000 + 64 * 1024), "a.zip").status_code == 413


@pytest.fixture
def little_room(app, monkeypatch):
    """A person may have 20 MB of files that belong to nothing."""
    monkeypatch.setitem(app.config, "MAX_UPLOAD_MB", 1)


def grow(*ids: int, megabytes: int) -> None:
    """Let files have a size that would take long to upload."""
    with db.engine.begin() as connection:
        connection.execute(sa.update(Attachment).where(Attachment.id.in_(ids)).values(size=megabytes * 2**20))


def test_what_belongs_to_nothing_has_a_limit_for_each_person(people, topics, sign_in, little_room):
    member = sign_in(people.member)
    kept, other = uploaded(member, b"words", "a.txt"), uploaded(member, b"words", "b.txt")
    grow(kept.id, megabytes=19)
    before = stored_files()
    answer = upload(member, b"words", "c.txt")
    assert answer.status_code == 422
    assert answer.text.startswith("You've uploaded a lot that is in no post yet. Save your text first")
    typed = {"title": "T", "body": "An hour of words", "topic": topics.open.id, "upload": (BytesIO(b"words"), "c.txt")}
    answer = member.submit("/posts/new", typed)
    assert (answer.status_code, "An hour of words" in answer.text) == (422, True)
    assert "uploaded a lot that is in no post yet" in answer.text
    assert stored_files() == before
    assert upload(sign_in(people.editor), b"words", "c.txt").status_code == 200
    bound(member, topics.open, kept.id)
    assert upload(member, b"words", "c.txt").status_code == 200
    grow(other.id, megabytes=19)
    member.submit(f"/files/{other.id}/delete")
    assert upload(member, b"words", "c.txt").status_code == 422, "what was removed is still on the disk"


def test_an_upload_without_a_file_is_refused(people, sign_in):
    assert sign_in(people.member).submit("/files").status_code == 400


@pytest.mark.parametrize(("count", "said"), [
    (0, "no bytes"), (1, "1 byte"), (999, "999 bytes"), (1024, "1.0 KB"), (12_345, "12 KB"), (3_600_000, "3.4 MB"),
    (1_048_575, "1.0 MB"), (25 * 2**20, "25 MB"), (20 * 2**20, "20 MB"), (2_700_000_000, "2.5 GB"),
    (3 * 2**40, "3072 GB"),
])  # fmt: skip
def test_a_size_is_told_in_words(count, said):
    assert corkboard.file_size(count) == said
