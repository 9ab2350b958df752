"""Publishing: drafts, what is scheduled, what expires, pins that end, telling again, and turning news into a page."""

from __future__ import annotations

import re
import secrets
from datetime import date, datetime, timedelta
from io import BytesIO
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from conftest import add_comment, add_person, add_post, edit_post, together
from test_posts import again, count, ids_in, written
from world import set_columns

import app as corkboard
from app import (
    Acknowledgement,
    Activity,
    EditConflict,
    Forbidden,
    NotVisible,
    Post,
    PostData,
    Revision,
    Topic,
    User,
    ValidationError,
)
from database import db

pytestmark = pytest.mark.usefixtures("cheap_hashes")

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BEGUN = {"title": "Half a thought", "body": "It begins"}


@pytest.fixture
def clock(monkeypatch):
    """The application's time, which stands still until a test moves it."""
    clock = SimpleNamespace(now=datetime(2026, 3, 2, 9, 0))
    monkeypatch.setattr(corkboard, "utcnow", lambda: clock.now)
    return clock


def a_draft(author, topic, **values) -> Post:
    return add_post(author, topic, how="draft", **values)


def scheduled(author, topic, when: datetime, **values) -> Post:
    return add_post(author, topic, scheduled_for=when, **values)


def form_of(post: Post, **values) -> dict:
    return {"title": post.title, "body": post.body, "topic": post.topic_id, "version": post.version} | values


def recorded(post_id: int) -> list[str]:
    db.session.rollback()
    on_it = sa.select(Activity.action).where(Activity.object_type == "post", Activity.object_id == post_id)
    return list(db.session.scalars(on_it.order_by(Activity.id)))


# -- Drafts ------------------------------------------------------------------------------------------------------------


def test_a_draft_is_seen_by_its_author_and_nobody_else(people, topics, sign_in):
    browser = sign_in(people.member)
    answer = browser.submit("/posts/new", written(topics.open, title="Half a thought", draft="1"))
    assert answer.status_code == 303
    page = browser.get(answer.location).text
    assert "only you can see it" in page
    assert "Half a thought" in browser.get("/posts/drafts").text
    for who in ("reader", "editor", "admin", "stranger"):
        other = sign_in(getattr(people, who))
        assert other.get(answer.location).status_code == 404
        for path in ("/", "/topics/everyone", "/people/member"):
            assert "Half a thought" not in other.get(path).text
        if who != "reader":
            assert "Half a thought" not in other.get("/posts/drafts").text
    for path in ("/", "/topics/everyone", "/people/member"):
        assert "Half a thought" not in browser.get(path).text, "lists show what is published, to its author too"


def test_a_draft_of_a_handbook_page_is_in_no_handbook_and_no_sidebar(people, topics, sign_in):
    a_draft(people.editor, topics.open, title="Half a page", kind="page")
    for who in (people.editor, people.admin):
        for path in ("/handbook", "/"):
            assert "Half a page" not in sign_in(who).get(path).text


def test_nobody_else_changes_deletes_or_comments_on_a_draft(people, topics):
    post = a_draft(people.member, topics.open)
    for refused in (
        lambda: edit_post(people.editor, post, body="B"),
        lambda: Post.delete(people.editor, post.id),
        lambda: Post.restore(people.admin, post.id),
        lambda: Post.pin(people.editor, post.id, True),
        lambda: edit_post(people.editor, post, how="autosave", body="B"),
        lambda: add_comment(people.editor, post),
    ):
        with pytest.raises(NotVisible):
            refused()
    with pytest.raises(Forbidden):
        add_comment(people.member, post)


def test_a_draft_may_be_unfinished_and_what_is_published_may_not(people, topics, sign_in):
    browser = sign_in(people.member)
    answer = browser.submit("/posts/new", written(topics.open, title="", body="Only this", draft="1"))
    assert answer.status_code == 303
    assert "Untitled" in browser.get(answer.location).text
    post = db.session.scalar(sa.select(Post))
    refused = browser.submit(f"/posts/{post.id}/edit", form_of(post))
    assert refused.status_code == 422
    assert again(post).published_at is None


def test_publishing_a_draft_is_what_the_others_see_first(people, topics, sign_in):
    post, browser = a_draft(people.member, topics.open, title="At last"), sign_in(people.member)
    reader = sign_in(people.reader)
    assert ids_in(reader.get("/").text) == []
    assert browser.submit(f"/posts/{post.id}/edit", form_of(post)).status_code == 303
    assert ids_in(reader.get("/").text) == [post.id]
    page = reader.get(f"/posts/{post.id}").text
    assert "edited" not in page
    assert recorded(post.id) == ["post.drafted", "post.published"]


def test_each_way_to_save_says_what_it_did(people, topics, sign_in):
    browser = sign_in(people.member)

    def said(address: str, form: dict) -> str:
        answer = browser.submit(address, form)
        assert answer.status_code == 303, answer.text
        page = browser.get(answer.location).text
        return " ".join(re.search(r'(?s)class="flash flash-success".*?<p>(.*?)</p>', page)[1].split())

    draft = browser.submit("/posts/autosave", written(topics.open, **BEGUN)).json
    address, form = f"/posts/{draft['id']}/edit", BEGUN | {"topic": topics.open.id, "version": draft["version"]}
    assert said(address, form | {"draft": "1"}) == "Saved as a draft. Only you can see it."
    assert said(address, form | {"scheduled_for": "2090-03-02T09:00"}).startswith("Scheduled for ")
    assert said(address, form | {"draft": "1"}) == "Saved as a draft. Only you can see it."
    assert said(address, form | {"scheduled_for": "2090-03-02T09:00"}).startswith("Scheduled for ")
    assert said(address, form | {"scheduled_for": ""}) == "Published."
    assert said(address, form | {"body": "Better", "version": draft["version"]}) == "Saved."
    assert said("/posts/new", written(topics.open)) == "Published."


def test_what_was_saved_of_a_draft_stays_with_its_author(people, topics):
    post = a_draft(people.member, topics.open, title="Rude words")
    edit_post(people.member, post, how="draft", title="Still rude")
    assert count(Revision, Revision.post_id == post.id) == 0
    edit_post(people.member, post, title="Kind", body="Kind words")
    db.session.rollback()
    kept = db.session.scalars(sa.select(Revision).where(Revision.post_id == post.id)).all()
    assert [(row.number, row.title) for row in kept] == [(1, "Kind")]
    assert again(post).revision == 1


def test_a_form_that_was_left_open_on_a_draft_is_noticed_after_publishing(people, topics):
    post = a_draft(people.member, topics.open)
    version = post.version
    edit_post(people.member, post, body="First")
    with pytest.raises(EditConflict):
        edit_post(people.member, post, version=version, body="Second")


def test_an_old_form_of_a_new_post_does_not_overwrite_the_draft_that_was_edited_since(people, topics, sign_in):
    browser, form = sign_in(people.member), written(topics.open, title="Begun", body="The old words")
    address = browser.submit("/posts/new", form | {"draft": "1"}).location
    post = db.session.scalar(sa.select(Post))
    browser.submit(f"{address}/edit", form_of(post, body="An hour of work", draft="1"))
    old = browser.submit("/posts/new", form)
    assert old.status_code == 409
    assert "You saved this elsewhere first" in old.text
    assert "An hour of work" in old.text
    assert "The old words" in old.text
    assert (again(post).body, post.published_at) == ("An hour of work", None)
    assert count(Revision) == 0
    version = re.search(r'name="version"[^>]*value="(\d+)"', old.text)[1]
    assert f'action="{address}/edit"' in old.text
    assert browser.submit(f"{address}/edit", form | {"version": version}).status_code == 303
    assert again(post).body == "The old words"
    assert post.published_at is not None


def test_a_form_that_knows_its_draft_goes_on_and_one_that_never_heard_only_from_the_first(people, topics, sign_in):
    browser, form = sign_in(people.member), written(topics.open, draft="1")
    for body in ("One", "Two"):  # the answer to the first was lost
        assert browser.submit("/posts/new", form | {"body": body}).status_code == 303
    post = db.session.scalar(sa.select(Post))
    assert browser.submit("/posts/new", form | {"body": "Three"}).status_code == 409
    assert browser.submit("/posts/new", form | {"body": "Three", "version": post.version}).status_code == 303
    assert again(post).body == "Three"


@pytest.mark.parametrize("wish", [{}, {"draft": "1"}])
def test_the_very_same_form_sent_again_and_again_makes_one_post_and_no_conflict(people, topics, sign_in, wish):
    browser, form = sign_in(people.member), written(topics.open) | wish
    assert len({browser.submit("/posts/new", form).location for _ in range(3)}) == 1
    assert count(Post) == 1


def test_a_published_post_never_becomes_a_draft(people, topics, sign_in):
    post = add_post(people.member, topics.open)
    sign_in(people.member).submit(f"/posts/{post.id}/edit", form_of(post, body="Changed", draft="1"))
    assert again(post).published_at is not None
    assert ids_in(sign_in(people.reader).get("/").text) == [post.id]


@pytest.mark.parametrize("gap", ["title", "body"])
def test_no_form_and_no_action_empties_what_is_published_or_scheduled(people, topics, sign_in, clock, gap):
    post, browser = add_post(people.member, topics.open), sign_in(people.member)
    answer = browser.submit(f"/posts/{post.id}/edit", form_of(post, draft="1") | {gap: ""})
    assert answer.status_code == 422
    later = scheduled(people.member, topics.open, clock.now + HOUR)
    for one in (post, later):
        with pytest.raises(ValidationError, match="others will see it"):
            edit_post(people.member, one, **{gap: " "})
        assert (again(one).title, one.version) == ("The crane is back", 1)
    draft = a_draft(people.member, topics.open)
    edit_post(people.member, draft, how="draft", **{gap: ""})
    with pytest.raises(ValidationError, match="others will see it"):
        edit_post(people.member, draft)
    assert again(draft).published_at is None


@pytest.mark.parametrize(("moment", "said"), [
    ("2026-03-02T10:01", "Schedule"), ("2026-03-02T09:59", "Publish"), ("", "Publish"), ("soon", "Publish"),
    ("0001-01-01T00:00", "Publish"), ("9999-12-31T23:59", "Schedule"),
])  # fmt: skip
def test_the_button_of_a_form_that_came_back_says_what_it_will_do(people, topics, sign_in, clock, moment, said):
    set_columns(User, people.member.id, timezone="Europe/Berlin")  # an hour ahead
    browser = sign_in(people.member)
    answer = browser.submit("/posts/new", written(topics.open, title="", scheduled_for=moment))
    assert answer.status_code == 422
    assert go_button(answer.text) == said
    assert 'data-clock="2026-03-02T10:00:00"' in answer.text
    assert go_button(browser.get("/posts/new").text) == "Publish"


def test_what_is_scheduled_is_saved_and_without_its_date_published(people, topics, sign_in, clock):
    later = scheduled(people.member, topics.open, clock.now + HOUR)
    browser = sign_in(people.member)
    page = browser.get(f"/posts/{later.id}/edit").text
    assert go_button(page) == "Save"
    assert 'data-now="Publish"' in page
    undated = form_of(later, title="", scheduled_for="")
    assert go_button(browser.submit(f"/posts/{later.id}/edit", undated).text) == "Publish"


def go_button(page: str) -> str:
    found = re.search(r'<button[^>]*id="publish"[^>]*>([^<]*)</button>', page)
    assert found is not None
    return found[1].strip()


# -- Autosaving --------------------------------------------------------------------------------------------------------


def test_what_is_typed_is_kept_by_itself_and_survives_a_closed_browser(people, topics, sign_in):
    browser, form = sign_in(people.member), BEGUN | {"topic": topics.open.id, "form_id": secrets.token_hex(16)}
    first = browser.submit("/posts/autosave", form)
    assert first.status_code == 200
    later = form | {"body": "It goes on", "version": first.json["version"]}
    second = browser.submit(f"/posts/{first.json['id']}/autosave", later)
    assert second.json["id"] == first.json["id"]
    page = sign_in(people.member).get("/posts/drafts").text
    assert "Half a thought" in page
    assert "It goes on" in sign_in(people.member).get(f"/posts/{first.json['id']}/edit").text
    assert count(Revision) == 0, "what is kept by itself makes no revision"
    assert recorded(first.json["id"]) == ["post.drafted"]


def test_every_field_of_the_form_is_kept_by_itself_except_when_it_appears(people, topics, sign_in):
    browser, form = sign_in(people.editor), written(topics.open, **BEGUN) | {"kind": "news"}
    draft = browser.submit("/posts/autosave", form | {"expires_at": "2030-03-04"}).json
    address, version = f"/posts/{draft['id']}/edit", {"version": draft["version"]}
    assert 'value="2030-03-04"' in browser.get(address).text
    later = form | version | {"topic": topics.private.id, "kind": "page", "owner": people.editor.id, "review": "6"}
    saved = browser.submit(f"/posts/{draft['id']}/autosave", later | {"scheduled_for": "2030-03-02T09:00"})
    assert saved.json == draft, "only another text is another version"
    post = again(db.session.get(Post, draft["id"]))
    kept = (post.topic_id, post.kind, post.owner_id, post.review_every, post.expires_at)
    assert kept == (topics.private.id, "page", people.editor.id, 6, None)
    assert (post.scheduled_for, post.published_at) == (None, None), "the site would publish it then"
    page = browser.get(address).text
    assert re.search(rf'<option selected value="{people.editor.id}">', page)
    assert re.search(r'<option selected value="6">', page)


@pytest.mark.parametrize("day", ["0002-03-04", "0202-03-04", "9999-12-31", ""])
def test_a_day_that_is_half_typed_keeps_nothing_else_from_being_kept(people, topics, sign_in, day):
    browser, form = sign_in(people.member), written(topics.open, **BEGUN)
    draft = browser.submit("/posts/autosave", form | {"expires_at": "2030-03-04"}).json
    later = form | {"version": draft["version"], "body": "It goes on", "expires_at": day, "until": day, "due": day}
    assert browser.submit(f"/posts/{draft['id']}/autosave", later).status_code == 200
    post = again(db.session.get(Post, draft["id"]))
    assert (post.body, post.expires_at) == ("It goes on", None)


def test_files_that_were_added_to_a_draft_are_kept_with_it(people, topics, sign_in):
    browser = sign_in(people.member)
    upload = browser.submit("/files", {"upload": (BytesIO(b"words"), "notes.txt")})
    file_id = re.search(r'name="attached"\s+value="(\d+)"', upload.text)[1]
    draft = browser.submit("/posts/autosave", written(topics.open, **BEGUN) | {"attached": file_id}).json
    assert "notes.txt" in browser.get(f"/posts/{draft['id']}").text


def test_the_first_autosave_sent_twice_makes_one_draft(app, people, topics):
    member, form_id = SimpleNamespace(id=people.member.id), secrets.token_hex(16)
    data = PostData("news", topics.open.id, **BEGUN)
    keep = lambda: Post.save(member, data, how="autosave", form_id=form_id).id  # noqa: E731
    assert len({*together(app, *[keep] * 5)}) == 1
    assert count(Post) == 1


def test_publishing_from_a_page_that_does_not_know_its_draft_publishes_that_draft(people, topics, sign_in):
    browser, form = sign_in(people.member), written(topics.open, title="Begun", body="Half")
    begun = browser.submit("/posts/autosave", form).json["id"]
    answer = browser.submit("/posts/new", form | {"body": "Whole"})
    assert answer.location == f"/posts/{begun}"
    assert browser.submit("/posts/new", form | {"body": "Sent again"}).location == answer.location
    post = db.session.get(Post, begun)
    assert (again(post).body, post.revision) == ("Whole", 1)
    assert post.published_at is not None


@pytest.mark.parametrize("state", ["published", "scheduled"])
def test_autosaving_never_touches_what_is_published_or_waits_to_be(people, topics, sign_in, state):
    when = corkboard.utcnow() + DAY if state == "scheduled" else None
    post, browser = scheduled(people.member, topics.open, when), sign_in(people.member)
    answer = browser.submit(f"/posts/{post.id}/autosave", form_of(post, body="Half a change"))
    assert answer.status_code == 422
    assert browser.submit("/posts/autosave", form_of(post, body="Half", form_id=post.form_id)).status_code == 422
    assert again(post).body == "Hall B opens again on **Thursday**."


def test_two_windows_on_one_draft_do_not_overwrite_each_other(people, topics, sign_in):
    post, browser = a_draft(people.member, topics.open), sign_in(people.member)
    form = form_of(post, body="In the first window")
    assert browser.submit(f"/posts/{post.id}/autosave", form).status_code == 200
    assert browser.submit(f"/posts/{post.id}/autosave", form | {"body": "In the second"}).status_code == 409
    assert browser.submit(f"/posts/{post.id}/edit", form | {"body": "In the second"}).status_code == 409
    assert again(post).body == "In the first window"
    same = browser.submit(f"/posts/{post.id}/edit", form)
    assert same.status_code == 303, "the same text is no conflict: its answer may have been lost"


def autosaving(browser, form: dict, clock, pause: float, times: int) -> list[int]:
    """The statuses that so many saves get, so many seconds after one another, up to the first that is refused."""
    statuses, version = [], 0
    for number in range(times):
        clock.now += timedelta(seconds=pause)
        answer = browser.submit("/posts/autosave", form | {"body": f"Word {number}", "version": version})
        statuses.append(answer.status_code)
        if answer.status_code != 200:
            assert 1 <= int(answer.headers["Retry-After"]) <= 10
            break
        version = answer.json["version"]
    return statuses


def test_a_script_that_saves_each_second_is_stopped_and_nobody_else(people, topics, sign_in, clock):
    browser, form = sign_in(people.member), written(topics.open, **BEGUN)
    statuses = autosaving(browser, form, clock, pause=1, times=300)
    assert statuses[-1] == 429
    assert 60 < len(statuses) < 180
    kept = db.session.scalar(sa.select(Post.body).where(Post.form_id == form["form_id"]))
    assert kept == f"Word {len(statuses) - 2}", "what came too often changed nothing"
    db.session.rollback()
    assert autosaving(sign_in(people.editor), written(topics.open, **BEGUN), clock, 1, times=2) == [200, 200]
    clock.now += timedelta(seconds=10)
    again_later = form | {"body": "After a while", "version": version_of(form)}
    assert browser.submit("/posts/autosave", again_later).status_code == 200


def version_of(form: dict) -> int:
    db.session.rollback()
    return db.session.scalar(sa.select(Post.version).where(Post.form_id == form["form_id"])) or 0


def test_a_person_who_types_all_the_time_in_two_windows_is_never_stopped(people, topics, sign_in, clock):
    """The script of a page saves four seconds after a change at the earliest."""
    assert set(autosaving(sign_in(people.member), written(topics.open, **BEGUN), clock, 2, times=150)) == {200}


def test_an_autosave_that_never_heard_of_its_draft_overwrites_nothing_that_was_written_since(people, topics, sign_in):
    browser, form = sign_in(people.member), BEGUN | {"topic": topics.open.id, "form_id": secrets.token_hex(16)}
    first = browser.submit("/posts/autosave", form).json
    assert browser.submit("/posts/autosave", form | {"body": "The first answer was lost"}).status_code == 200
    post = again(db.session.get(Post, first["id"]))
    browser.submit(f"/posts/{post.id}/edit", form_of(post, body="An hour of work", draft="1"))
    assert browser.submit("/posts/autosave", form | {"body": "The old words"}).status_code == 409
    assert again(post).body == "An hour of work"
    same = browser.submit("/posts/autosave", form | {"body": "An hour of work"})
    assert same.json == {"id": post.id, "version": post.version}, "the same text is no conflict, and no version"


def test_an_empty_form_begins_no_draft_and_a_member_begins_no_page(people, topics, sign_in):
    browser, empty = sign_in(people.member), {"title": " ", "body": "", "topic": topics.open.id}
    assert browser.submit("/posts/autosave", empty).status_code == 422
    assert browser.submit("/posts/autosave", empty | {"title": "T", "kind": "page"}).status_code == 403
    assert browser.submit("/posts/autosave", {"title": "T", "topic": 7777}).status_code == 422
    assert count(Post) == 0


def test_the_form_of_a_draft_is_kept_by_itself_and_that_of_a_published_post_is_not(people, topics, sign_in):
    browser = sign_in(people.member)
    draft, post = a_draft(people.member, topics.open), add_post(people.member, topics.open)
    assert 'data-autosave="/posts/autosave"' in browser.get("/posts/new").text
    assert f'data-autosave="/posts/{draft.id}/autosave"' in browser.get(f"/posts/{draft.id}/edit").text
    assert "data-autosave" not in browser.get(f"/posts/{post.id}/edit").text


# -- Scheduled ---------------------------------------------------------------------------------------------------------


def test_what_is_scheduled_is_published_by_the_job_when_its_time_has_come(people, topics, sign_in, clock):
    post = scheduled(people.member, topics.open, clock.now + HOUR)
    page = scheduled(people.editor, topics.open, clock.now + HOUR, kind="page", title="A page to come")
    reader = sign_in(people.reader, remember=True)
    paths = ("/", "/topics/everyone", "/people/member")
    assert [ids_in(reader.get(path).text) for path in paths] == [[], [], []]
    assert "A page to come" not in reader.get("/handbook").text + reader.get("/").text
    assert [reader.get(f"/posts/{one.id}").status_code for one in (post, page)] == [404, 404]
    clock.now += HOUR - timedelta(minutes=1)
    assert Post.publish_due() == 0
    assert ids_in(reader.get("/").text) == []
    clock.now += timedelta(minutes=2)
    run = corkboard.current_app.test_cli_runner().invoke(args=["jobs", "run", "publish"])
    assert "2 posts published." in run.output
    assert [ids_in(reader.get(path).text) for path in paths] == [[post.id]] * 3
    assert "A page to come" in reader.get("/handbook").text
    assert "A page to come" in reader.get("/").text
    assert [reader.get(f"/posts/{one.id}").status_code for one in (post, page)] == [200, 200]
    assert (again(post).published_at, post.scheduled_for, post.revision) == (clock.now, None, 1)
    assert recorded(post.id) == ["post.scheduled", "post.published"]
    published = db.session.scalar(sa.select(Activity).where(Activity.action == "post.published"))
    assert published.actor_id == people.member.id, "it is the author's doing"
    assert Post.publish_due() == 0


def test_two_processes_publish_a_scheduled_post_once(app, people, topics, clock):
    post = scheduled(people.member, topics.open, clock.now + HOUR)
    clock.now += HOUR
    assert sum(together(app, *[Post.publish_due] * 4)) == 1
    assert recorded(post.id) == ["post.scheduled", "post.published"]


@pytest.mark.parametrize("lost", ["account", "role", "topic", "kind"])
def test_who_may_not_write_there_any_more_has_a_draft_again(people, topics, sign_in, clock, lost):
    topic = topics.private if lost == "topic" else topics.open
    author = add_person("author", corkboard.Role.EDITOR)
    if lost == "topic":
        Topic.add_members(people.editor, topic.id, [author.id])
    post = scheduled(author, topic, clock.now + HOUR, kind="page" if lost == "kind" else "news")
    if lost == "topic":
        Topic.remove_member(people.editor, topic.id, author.id)
    elif lost == "account":
        User.deactivate(people.admin, author.id)
    else:
        role = corkboard.Role.READER if lost == "role" else corkboard.Role.MEMBER
        User.set_role(people.admin, author.id, role)
    clock.now += HOUR
    assert Post.publish_due() == 0
    assert (again(post).published_at, post.scheduled_for) == (None, None)
    assert recorded(post.id) == ["post.scheduled", "post.unscheduled"]
    if lost in ("role", "kind"):
        assert "only you can see it" in sign_in(author, remember=True).get(f"/posts/{post.id}").text


def test_a_deleted_post_is_not_published(people, topics, clock):
    post = scheduled(people.member, topics.open, clock.now + HOUR)
    Post.delete(people.member, post.id)
    clock.now += HOUR
    assert Post.publish_due() == 0
    Post.restore(people.member, post.id)
    assert Post.publish_due() == 1


def test_the_author_and_editors_see_what_is_scheduled_and_when(people, topics, sign_in, clock):
    post = scheduled(people.member, topics.open, datetime(2026, 3, 5, 14, 30))
    User.edit_appearance(people.editor, "system", "Europe/Helsinki", True)
    assert "Thursday 5 March, 14:30" in sign_in(people.member).get(f"/posts/{post.id}").text
    assert "Thursday 5 March, 16:30" in sign_in(people.editor).get(f"/posts/{post.id}").text
    assert sign_in(people.stranger).get(f"/posts/{post.id}").status_code == 404
    private = scheduled(people.member, topics.private, datetime(2026, 3, 5, 14, 30))
    User.set_role(people.admin, people.stranger.id, corkboard.Role.EDITOR)
    assert sign_in(people.stranger).get(f"/posts/{post.id}").status_code == 200
    assert sign_in(people.stranger).get(f"/posts/{private.id}").status_code == 404


def test_a_time_is_typed_and_shown_in_ones_own_zone(people, topics, sign_in, clock):
    User.edit_appearance(people.member, "system", "America/New_York", True)
    browser = sign_in(people.member)
    answer = browser.submit("/posts/new", written(topics.open, scheduled_for="2026-03-05T09:30"))
    post = db.session.scalar(sa.select(Post))
    assert post.scheduled_for == datetime(2026, 3, 5, 14, 30)
    assert "Scheduled for Thursday 5 March, 09:30." in browser.get(answer.location).text
    assert 'value="2026-03-05T09:30"' in browser.get(f"{answer.location}/edit").text
    assert recorded(post.id) == ["post.scheduled"]


def test_a_scheduled_post_is_moved_published_at_once_or_taken_back(people, topics, sign_in, clock):
    post, browser = scheduled(people.member, topics.open, clock.now + HOUR), sign_in(people.member)
    address = f"/posts/{post.id}/edit"
    browser.submit(address, form_of(post, scheduled_for="2026-03-09T08:00"))
    assert again(post).scheduled_for == datetime(2026, 3, 9, 8)
    browser.submit(address, form_of(post, body="Other words"))
    assert again(post).scheduled_for == datetime(2026, 3, 9, 8), "a form that does not speak of it leaves it"
    browser.submit(address, form_of(post, draft="1"))
    assert (again(post).scheduled_for, post.published_at) == (None, None)
    browser.submit(address, form_of(post, scheduled_for=""))
    assert again(post).published_at == clock.now
    assert post.edited_at is None
    assert post.revision == 1


def test_what_was_must_read_when_it_was_scheduled_can_be_confirmed_after_it_was_a_draft(people, topics, clock):
    post = scheduled(people.editor, topics.open, clock.now + HOUR)
    Acknowledgement.require(people.editor, post.id, roles=[corkboard.Role.READER])
    edit_post(people.editor, post, how="draft", body="Again")
    edit_post(people.editor, post, body="At last")
    Acknowledgement.acknowledge(people.reader, post.id, again(post).revision)
    assert [row.revision for row in db.session.scalars(sa.select(Acknowledgement))] == [post.revision] == [1]


ATTENTION = {"pinned": "y", "until": "2026-03-05", "must_read": "y", "due": "2026-03-04"}


def told_to_read() -> set[int]:
    db.session.rollback()
    kinds = sa.select(corkboard.Notification.user_id).where(corkboard.Notification.kind == "must_read")
    return set(db.session.scalars(kinds))


def test_an_editor_pins_a_draft_and_makes_it_must_read_and_both_hold_from_when_it_is_published(
    people, topics, sign_in, clock
):
    browser = sign_in(people.editor)
    browser.submit("/posts/new", written(topics.open, draft="1", **ATTENTION))
    (post,) = db.session.scalars(sa.select(Post))
    form = browser.get(f"/posts/{post.id}/edit").text
    assert form.count('value="y" checked') == 2
    assert all(f'value="{day}"' in form for day in ("2026-03-05", "2026-03-04"))
    assert not told_to_read()
    clock.now += HOUR
    later = (clock.now + HOUR).strftime("%Y-%m-%dT%H:%M")
    browser.submit(f"/posts/{post.id}/edit", form_of(post, scheduled_for=later, **ATTENTION))
    assert not told_to_read()
    assert "Pinned" not in browser.get("/").text
    clock.now += HOUR
    Post.publish_due()
    assert told_to_read() == {people.reader.id, people.member.id, people.admin.id, people.stranger.id}
    published = again(post)
    assert published.pinned_at == published.published_at == clock.now
    assert published.pinned_until == datetime(2026, 3, 6)
    assert published.must_read_due == date(2026, 3, 4)
    assert "Pinned" in browser.get(f"/posts/{post.id}").text
    assert "Please read this by" in re.sub(r"\s+", " ", sign_in(people.reader).get(f"/posts/{post.id}").text)


def test_new_news_is_pinned_and_must_read_at_once_and_an_unticked_box_takes_its_day_along(
    people, topics, sign_in, clock
):
    browser = sign_in(people.editor)
    browser.submit("/posts/new", written(topics.open, **ATTENTION))
    browser.submit("/posts/new", written(topics.open, until="2026-03-05", due="2026-03-04"))
    first, second = db.session.scalars(sa.select(Post).order_by(Post.id))
    assert first.is_pinned(clock.now)
    assert first.must_read_since
    assert (second.pinned_at, second.pinned_until, second.must_read_since, second.must_read_due) == (None,) * 4


def test_autosave_keeps_pin_and_must_read_and_unticking_ends_them(people, topics, sign_in, clock):
    browser = sign_in(people.editor)
    saved = browser.submit("/posts/autosave", written(topics.open, **ATTENTION)).get_json()
    post = db.session.get_one(Post, saved["id"])
    assert post.pinned_at
    assert post.must_read_since
    browser.submit(f"/posts/{post.id}/autosave", form_of(post))
    assert again(post).pinned_at is None
    assert again(post).must_read_since is None


def test_only_editors_are_offered_pin_and_must_read_and_nobody_else_may_send_them(people, topics, sign_in, clock):
    browser = sign_in(people.member)
    assert 'name="pinned"' not in browser.get("/posts/new").text
    browser.submit("/posts/new", written(topics.open, **ATTENTION))
    (post,) = db.session.scalars(sa.select(Post))
    assert post.pinned_at is None
    assert post.must_read_since is None
    published = sign_in(people.editor)
    assert 'name="pinned"' not in published.get(f"/posts/{post.id}/edit").text
    published.submit(f"/posts/{post.id}/edit", form_of(post, **ATTENTION))
    assert again(post).pinned_at is None
    data = PostData("news", topics.open.id, "T", "B", attention=corkboard.Attention(True, None, False, None))
    with pytest.raises(Forbidden):
        Post.save(people.member, data, how="publish", form_id="a" * 32)


def test_what_an_editor_set_stays_when_its_author_saves_it_and_readers_who_were_chosen_stay(
    people, topics, sign_in, clock
):
    post = scheduled(people.member, topics.open, clock.now + HOUR)
    Acknowledgement.require(people.editor, post.id, roles=[corkboard.Role.READER])
    Post.pin(people.editor, post.id, True)
    later = (clock.now + HOUR).strftime("%Y-%m-%dT%H:%M")
    sign_in(people.member).submit(f"/posts/{post.id}/edit", form_of(post, body="Again", scheduled_for=later))
    assert again(post).is_pinned(clock.now)
    changed = form_of(again(post), scheduled_for=later, must_read="y", pinned="y")
    sign_in(people.editor).submit(f"/posts/{post.id}/edit", changed)
    clock.now += HOUR
    Post.publish_due()
    assert told_to_read() == {people.reader.id}


def test_a_pin_that_is_over_is_told_beside_its_day_and_a_page_is_never_pinned(people, topics, sign_in, clock):
    browser = sign_in(people.editor)
    answer = browser.submit("/posts/new", written(topics.open, pinned="y", until="2026-03-01"))
    assert answer.status_code == 422
    assert re.search(r'id="until-error">.*?Choose today or a later day', answer.text, re.DOTALL)
    assert count(Post) == 0
    browser.submit("/posts/new", written(topics.open, kind="page", **ATTENTION))
    db.session.rollback()
    (page,) = db.session.scalars(sa.select(Post))
    assert page.pinned_at is None
    assert page.must_read_since


@pytest.mark.parametrize("moment", ["2026-03-02T08:59", "1999-01-01T10:00", "9999-12-31T23:59", "yesterday"])
def test_a_time_that_is_over_or_none_is_refused(people, topics, sign_in, clock, moment):
    answer = sign_in(people.member).submit("/posts/new", written(topics.open, scheduled_for=moment))
    assert answer.status_code == 422
    assert "aria-invalid" in answer.text
    assert count(Post) == 0


def test_nobody_comments_before_a_post_is_published(people, topics, sign_in, clock):
    post = scheduled(people.member, topics.open, clock.now + HOUR)
    assert 'id="reply"' not in sign_in(people.editor).get(f"/posts/{post.id}").text
    with pytest.raises(Forbidden):
        add_comment(people.editor, post)
    assert again(post).comment_count == 0
    clock.now += HOUR
    Post.publish_due()
    add_comment(people.editor, post)


def test_what_is_scheduled_is_new_when_it_is_published(people, topics, sign_in, clock):
    browser = sign_in(people.reader, remember=True)
    scheduled(people.member, topics.open, clock.now + 2 * HOUR)
    browser.get("/")
    clock.now += 3 * HOUR
    Post.publish_due()
    assert browser.get("/").text.count('<b class="new">') == 1


# -- Expired, and pinned until -----------------------------------------------------------------------------------------


def test_what_has_expired_leaves_home_and_is_found_and_marked(people, topics, sign_in, clock):
    browser = sign_in(people.member, remember=True)
    answer = browser.submit("/posts/new", written(topics.open, expires_at="2026-03-02"))
    post_id = int(answer.location.rsplit("/", 1)[1])
    reader = sign_in(people.reader, remember=True)
    assert ids_in(reader.get("/").text) == [post_id]
    assert "Expired" not in reader.get("/topics/everyone").text
    clock.now = datetime(2026, 3, 3, 0, 0)
    assert ids_in(reader.get("/").text) == []
    for path in ("/topics/everyone", "/people/member"):
        assert ids_in(reader.get(path).text) == [post_id]
        assert "Expired" in reader.get(path).text
    assert "Expired" in reader.get(f"/posts/{post_id}").text


def test_an_expired_post_is_changed_without_touching_its_day_and_brought_back_by_a_new_one(
    people, topics, sign_in, clock
):
    post, browser = add_post(people.member, topics.open), sign_in(people.member, remember=True)
    browser.submit(f"/posts/{post.id}/edit", form_of(post, expires_at="2026-03-02"))
    clock.now += 5 * DAY
    changed = form_of(again(post), body="A", expires_at="2026-03-02")
    assert browser.submit(f"/posts/{post.id}/edit", changed).status_code == 303
    refused = browser.submit(f"/posts/{post.id}/edit", form_of(again(post), expires_at="2026-03-04"))
    assert refused.status_code == 422
    browser.submit(f"/posts/{post.id}/edit", form_of(post, expires_at=""))
    assert ids_in(browser.get("/").text) == [post.id]


def test_nothing_is_born_expired(people, topics, sign_in, clock):
    post, browser = scheduled(people.member, topics.open, clock.now + DAY), sign_in(people.member)
    address, leaves = f"/posts/{post.id}/edit", "2026-03-12"
    assert (
        browser.submit(address, form_of(post, scheduled_for="2026-03-03T09:00", expires_at=leaves)).status_code == 303
    )
    moved = browser.submit(address, form_of(again(post), scheduled_for="2026-04-01T09:00", expires_at=leaves))
    assert moved.status_code == 422
    assert "Choose a day after it is published." in moved.text
    assert again(post).scheduled_for == datetime(2026, 3, 3, 9)
    draft = a_draft(people.member, topics.open)
    kept = form_of(draft, expires_at=leaves, draft="1")
    assert browser.submit(f"/posts/{draft.id}/edit", kept).status_code == 303
    clock.now += 2 * DAY
    Post.publish_due()
    clock.now += 20 * DAY
    browser = sign_in(people.member, remember=True)
    assert browser.submit(f"/posts/{draft.id}/edit", form_of(again(draft), expires_at=leaves)).status_code == 422
    assert again(draft).published_at is None
    out = form_of(again(post), body="After its time", expires_at=leaves)
    assert browser.submit(address, out).status_code == 303, "what was out may have expired"


# -- What the form says beside the text --------------------------------------------------------------------------------


def test_what_is_not_the_text_makes_no_version_tells_nobody_and_asks_nobody_again(people, topics, sign_in, clock):
    post, editor = add_post(people.member, topics.open), sign_in(people.editor)
    Acknowledgement.require(people.editor, post.id, roles=[corkboard.Role.READER])
    Acknowledgement.acknowledge(people.reader, post.id, 1)
    editor.submit(f"/posts/{post.id}/edit", form_of(post, expires_at="2026-03-20", require_again="1"))
    assert again(post).expires_at is not None
    assert (post.version, post.revision, post.must_read_revision, post.edited_at) == (1, 1, 1, None)
    assert recorded(post.id) == ["post.published", "post.must_read", "post.acknowledged", "post.edited"]
    assert not corkboard.Acknowledgement.report(post).required - corkboard.Acknowledgement.report(post).read


def test_saving_a_form_as_it_came_moves_nothing_in_whichever_zone_one_is(people, topics, sign_in, clock):
    post = scheduled(people.member, topics.open, datetime(2026, 3, 5, 14, 30, 12))
    sign_in(people.member).submit(f"/posts/{post.id}/edit", form_of(post, expires_at="2026-03-20"))
    before = (again(post).scheduled_for, post.expires_at, post.version)
    User.edit_appearance(people.editor, "system", "Europe/Helsinki", True)
    browser = sign_in(people.editor)
    page = browser.get(f"/posts/{post.id}/edit").text
    shown = {
        name: re.search(rf'name="{name}"[^>]*value="([^"]*)"', page)[1] for name in ("scheduled_for", "expires_at")
    }
    assert shown == {"scheduled_for": "2026-03-05T16:30", "expires_at": "2026-03-21"}
    assert browser.submit(f"/posts/{post.id}/edit", form_of(post, **shown)).status_code == 303
    assert (again(post).scheduled_for, post.expires_at, post.version) == before


def test_a_pin_ends_by_itself(people, topics, sign_in, clock):
    post, editor = add_post(people.member, topics.open), sign_in(people.editor, remember=True)
    assert editor.submit(f"/posts/{post.id}/pin", {"pinned": "1", "until": "2026-03-03"}).status_code == 303
    assert ids_in(editor.get("/").text, "note") == [post.id]
    assert "until 3 March" in editor.get(f"/posts/{post.id}").text
    clock.now = datetime(2026, 3, 4, 0, 0)
    page = editor.get("/").text
    assert (ids_in(page, "note"), ids_in(page)) == ([], [post.id])
    assert "Unpin" not in editor.get(f"/posts/{post.id}").text
    for until in ("2026-03-03", "tomorrow", "1000-01-01"):
        assert editor.submit(f"/posts/{post.id}/pin", {"pinned": "1", "until": until}).status_code == 422
    editor.submit(f"/posts/{post.id}/pin", {"pinned": "1", "until": ""})
    assert ids_in(editor.get("/").text, "note") == [post.id]


# -- Telling again -----------------------------------------------------------------------------------------------------


def test_a_change_is_saved_quietly_or_told_again(people, topics, sign_in):
    post, browser = add_post(people.member, topics.open), sign_in(people.member)
    page = browser.get(f"/posts/{post.id}/edit").text
    assert "Save and notify everyone" in page
    browser.submit(f"/posts/{post.id}/edit", form_of(post, body="One"))
    assert recorded(post.id) == ["post.published", "post.edited"]
    told = browser.submit(f"/posts/{post.id}/edit", form_of(again(post), body="Two", notify="1"))
    assert "Everyone who can see it will be notified." in browser.get(told.location).text
    assert recorded(post.id)[2:] == ["post.edited", "post.shared_again"]


# -- News and pages ----------------------------------------------------------------------------------------------------


def test_an_editor_turns_news_into_a_page_and_back(people, topics, sign_in):
    post, browser = add_post(people.member, topics.open, "Parking"), sign_in(people.editor)
    Post.pin(people.editor, post.id, True)
    browser.submit(f"/posts/{post.id}/edit", form_of(post, kind="page", expires_at="2099-01-01"))
    assert (again(post).kind, post.pinned_at, post.expires_at) == ("page", None, None)
    assert "Parking" in browser.get("/handbook").text
    page = browser.get("/").text
    assert (ids_in(page, "note"), ids_in(page)) == ([], [])
    assert "post.turned" in recorded(post.id)
    browser.submit(f"/posts/{post.id}/edit", form_of(again(post), kind="news"))
    assert ids_in(browser.get("/").text) == [post.id]
    assert "Parking" not in re.sub(r"(?s)<aside.*?</aside>", "", browser.get("/handbook").text)


def test_a_member_turns_nothing_into_a_page(people, topics, sign_in):
    post, browser = add_post(people.member, topics.open), sign_in(people.member)
    assert ">Type<" not in browser.get(f"/posts/{post.id}/edit").text
    assert browser.submit(f"/posts/{post.id}/edit", form_of(post, kind="page")).status_code == 403
    assert again(post).kind == "news"


def test_the_days_of_the_form_are_whole_days_where_the_writer_is(people, topics, sign_in, clock):
    User.edit_appearance(people.member, "system", "Pacific/Auckland", True)
    browser = sign_in(people.member)
    browser.submit("/posts/new", written(topics.open, expires_at="2026-03-05"))
    post = db.session.scalar(sa.select(Post))
    assert post.expires_at == datetime(2026, 3, 5, 11, 0)
    with corkboard.current_app.test_request_context():
        corkboard.g.now, corkboard.g.viewer = clock.now, None
        assert corkboard.last_day(corkboard.end_of_day(date(2026, 3, 5))) == date(2026, 3, 5)
    with pytest.raises(ValidationError):
        add_post(people.member, topics.open, scheduled_for=clock.now + DAY, expires_at=clock.now + HOUR)
