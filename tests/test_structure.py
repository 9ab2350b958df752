"""The order inside the files: what makes one long file pleasant is kept true here."""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

import app as corkboard

PROJECT = Path(__file__).resolve().parent.parent
CODE = ("app.py", "config.py", "database.py", "wsgi.py")
TEMPLATES = PROJECT / "templates"
SOURCES = {name: (PROJECT / name).read_text(encoding="utf-8") for name in CODE}
PAGES = {path.relative_to(TEMPLATES).as_posix(): path.read_text(encoding="utf-8") for path in TEMPLATES.rglob("*.html")}
FUNCTION_MAX = 40
RULER = re.compile(r"# [=-]{2,}")


@functools.cache
def tree(name: str) -> ast.Module:
    return ast.parse(SOURCES[name])


@functools.cache
def functions(name: str):
    return [node for node in ast.walk(tree(name)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def lines_of(node) -> int:
    return node.end_lineno - node.lineno + 1


def banners(name: str) -> list[tuple[int, int, str]]:
    """The sections of a file: line, number and title."""
    found = re.finditer(r"^# == (\d+)\. (.+?) =+$", SOURCES[name], re.MULTILINE)
    return [(SOURCES[name].count("\n", 0, hit.start()) + 1, int(hit[1]), hit[2]) for hit in found]


# -- Contents and banners ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["app.py", "database.py"])
def test_the_contents_in_the_docstring_are_the_banners_in_their_order(name):
    contents = re.findall(r"^ ?(\d+)\. (.+?)(?:  .*)?$", ast.get_docstring(tree(name)) or "", re.MULTILINE)
    assert contents == [(str(number), title) for _, number, title in banners(name)]
    assert [number for _, number, _ in banners(name)] == [*range(1, len(contents) + 1)]


def test_the_contents_name_the_blueprints_and_models_that_there_are():
    told = {
        number: re.split(r",\s+", words)
        for number, words in re.findall(
            r"^ ?(\d+)\. [\w ]+?  +(.+(?:\n {20,}.+)*)$", corkboard.__doc__ or "", re.MULTILINE
        )
    }
    made = re.findall(r"^(\w+) = (?:Api)?Blueprint\(", SOURCES["app.py"], re.MULTILINE)
    assert told["6"] + told["7"] == made
    models = [node.name for node in tree("app.py").body if isinstance(node, ast.ClassDef) and is_model(node)]
    assert models == told["2"][1:]


def is_model(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base) == "db.Model" for base in node.bases)


@pytest.mark.parametrize("name", CODE)
def test_banners_are_all_alike(name):
    lines = SOURCES[name].splitlines()
    for number, line in enumerate(lines):
        if not RULER.match(line):
            continue
        full = len(line) == 120 and re.fullmatch(r"# (={118}|== .+ =+|-- .+ -+)", line)
        assert full, f"{name}:{number + 1}"
    for number, _, _ in banners(name) if name in ("app.py", "database.py") else ():
        above, below = lines[number - 2], lines[number]
        assert above == below == "# " + "=" * 118


def test_inside_a_model_come_queries_predicates_actions():
    for node in tree("app.py").body:
        if isinstance(node, ast.ClassDef) and is_model(node):
            body = "\n".join(SOURCES["app.py"].splitlines()[node.lineno : node.end_lineno])
            found = re.findall(r"^    # -- (\w+)$", body, re.MULTILINE)
            assert found == [part for part in ("queries", "predicates", "actions") if part in found], node.name


# -- Sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODE)
def test_no_function_is_too_long_to_be_read_at_once(name):
    assert not [f"{node.name}: {lines_of(node)}" for node in functions(name) if lines_of(node) > FUNCTION_MAX]


@pytest.mark.parametrize("name", ["app.py", "config.py", "database.py"])
def test_functions_are_short(name):
    sizes = sorted(lines_of(node) for node in functions(name))
    assert sizes[len(sizes) // 2] <= 8


@pytest.mark.parametrize("name", CODE)
def test_a_choice_is_between_two(name):
    conditionals = [node for node in ast.walk(tree(name)) if isinstance(node, ast.IfExp)]
    chained = [node.lineno for node in conditionals if {type(node.body), type(node.orelse)} & {ast.IfExp}]
    assert not chained


# -- The framework's own ways ------------------------------------------------------------------------------------------

REPLACED = {"Flask", "Request", "Response", "CSRFProtect", "SessionInterface", "SecureCookieSessionInterface", "Rule"}
MACHINERY = r"_get_current_object|\bctypes\b|\bgc\.|\bsched_|\bepoll\b"
CACHES = {
    "cached_part": "_draw_part",
    "icon": "icon",
    "names of this computer": "machine_names",
    "what the provider of company accounts says of itself": "provider",
    "words for times": "_ago",
    "static files": "static_hash",
}  # what may outlive a request
PARSER_AND_CHANNEL = ("RequestParser", "Channel")  # of wsgi.py, which goes into Waitress's


@pytest.mark.parametrize("name", CODE)
def test_nothing_of_the_framework_is_replaced_or_reached_into(name):
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
            assert not bases & REPLACED, f"{name}: {node.name}"
    assert not re.search(MACHINERY, SOURCES[name]), name


@pytest.mark.parametrize("name", CODE)
def test_only_these_caches_outlive_a_request(name):
    cached = [
        node.name
        for node in functions(name)
        if any(re.match(r"(functools\.)?(lru_)?cache\b", ast.unparse(decorator)) for decorator in node.decorator_list)
    ]
    assert {*cached} <= {*CACHES.values()}, cached


@pytest.mark.parametrize("name", ["app.py", "config.py", "database.py"])
def test_no_private_name_of_another_package_is_used(name):
    imported = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            imported |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not [alias.name for alias in node.names if alias.name.startswith("_")], name
            imported |= {alias.asname or alias.name for alias in node.names}
    private = [
        ast.unparse(node)
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr)
        and isinstance(node.value, ast.Name) and node.value.id in imported
    ]  # fmt: skip
    assert not private


def test_sql_is_written_in_database_py_alone():
    for name in ("app.py", "config.py", "wsgi.py"):
        assert not re.search(r"\bsa\.text\(|exec_driver_sql", SOURCES[name]), name


@pytest.mark.parametrize("name", CODE)
def test_everybodys_functions_say_what_they_are_for(name):
    """Those of more than a few lines that have no underscore; a name can tell what three lines do."""
    bare = [
        node.name
        for node in [*tree(name).body, *(inner for cls in tree(name).body if isinstance(cls, ast.ClassDef)
                                          for inner in cls.body)]
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
        and not ast.get_docstring(node) and len(node.body) > 6
        and not any(getattr(base, "id", "") == "SiteForm" for base in getattr(node, "bases", ()))
        and not node.name.endswith("Schema")
    ]  # fmt: skip
    assert {*bare} <= SELF_EVIDENT


SELF_EVIDENT = {"register_error_handlers", "execute"}


def test_every_view_says_what_it_does():
    app = corkboard.create_app("testing")
    views = {name: view for name, view in app.view_functions.items() if name not in corkboard.STATIC_ENDPOINTS}
    assert not [name for name, view in views.items() if not (view.__doc__ or "").strip().endswith(".")]
    assert not [name for name, view in views.items() if not hasattr(view, "access")]


def test_views_never_commit_and_never_fetch_what_was_not_asked_for():
    for node in functions("app.py"):
        called = {ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
        assert "db.session.commit" not in called, node.name
        if any(re.match(r"\w+\.(route|get|post)\(", ast.unparse(decorator)) for decorator in node.decorator_list):
            assert not called & {"db.session.get", "db.session.get_one"}, node.name


# -- Files -------------------------------------------------------------------------------------------------------------


def test_at_the_top_stand_the_four_modules_and_no_other():
    assert {path.name for path in PROJECT.glob("*.py")} == {*CODE}
    assert not list(PROJECT.glob("*/__init__.py"))


def test_nothing_is_printed_for_debugging_or_left_to_do():
    for name, source in SOURCES.items():
        calls = [ast.unparse(node.func) for node in ast.walk(tree(name)) if isinstance(node, ast.Call)]
        assert not {"breakpoint", "pdb.set_trace"} & {*calls}
        assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", source), name
        assert calls.count("print") <= (name == "wsgi.py")


def test_requirements_are_bounded_and_each_says_what_it_is_for():
    for path in (PROJECT / "requirements.txt", PROJECT / "tests" / "requirements.txt"):
        blocks = path.read_text(encoding="utf-8").strip().split("\n\n")
        for block in blocks:
            comments = [line for line in block.splitlines() if line.startswith("#")]
            packages = [line for line in block.splitlines() if not line.startswith("#")]
            assert comments, block
            for line in packages:
                bounded = re.match(r"[\w.\[\]-]+(~=\d|>=[\d.]+,<\d)", line)
                assert bounded or line in ('tzdata; sys_platform == "win32"', "-r ../requirements.txt"), line


def test_what_the_code_imports_is_required():
    required = re.findall(
        r"^([A-Za-z][\w-]+)", (PROJECT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    modules = {
        "alembic": "alembic", "flask": "Flask", "flask_bootstrap": "Bootstrap-Flask", "flask_migrate": "Flask-Migrate",
        "flask_sqlalchemy": "Flask-SQLAlchemy", "flask_wtf": "Flask-WTF", "markdown_it": "markdown-it-py",
        "mdit_py_plugins": "mdit-py-plugins", "segno": "segno", "pyotp": "pyotp", "jwt": "PyJWT",
        "nh3": "nh3", "PIL": "Pillow", "prometheus_client": "prometheus-client", "diff_match_patch": "diff-match-patch",
        "flask_limiter": "Flask-Limiter", "flask_smorest": "flask-smorest", "marshmallow": "marshmallow",
        "swagger_ui_bundle": "swagger-ui-bundle", "webargs": "flask-smorest",
        "sqlalchemy": "SQLAlchemy", "waitress": "waitress", "werkzeug": "Werkzeug", "wtforms": "WTForms",
        "jinja2": "Flask", "dotenv": "python-dotenv", "click": "Flask", "itsdangerous": "Flask", "markupsafe": "Flask",
    }  # fmt: skip
    own = {"app", "config", "database", "pillow_heif"}  # which is an extra: nothing fails without it
    for name in CODE:
        for node in ast.walk(tree(name)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for top in {one.partition(".")[0] for one in names} - own:
                assert top in sys.stdlib_module_names or modules.get(top) in required, f"{name} imports {top}"


# -- Templates ---------------------------------------------------------------------------------------------------------


def test_no_template_holds_code_or_looks_inline():
    for name, source in PAGES.items():
        assert not re.search(r"<script(?![^>]*\ssrc=)", source), name
        assert "<style" not in source or name == "mail/_base.html", name  # emails know no stylesheet
        assert not re.search(r"\sstyle=", source), name
        assert not re.search(r"\son\w+=", source), name
        assert "javascript:" not in source, name
        assert not re.search(r'(?:src|href|action)="(?:https?:)?//', source), name


def test_every_template_is_used_and_every_used_one_is_there():
    quoted = r"[\"']((?:\w+/)*_?\w+\.html)[\"']"
    used = {name for source in (*SOURCES.values(), *PAGES.values()) for name in re.findall(quoted, source)}
    assert used == {*PAGES}


def test_a_views_template_bears_its_name():
    """`posts.edit` draws `posts/edit.html`; what a fragment or a step of another page is, says its own name."""
    drawn = set()
    for node in functions("app.py"):
        drawn |= {
            (node.name, call.args[0].value)
            for call in ast.walk(node)
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ("render_template", "form_page")
            and call.args and isinstance(call.args[0], ast.Constant)
        }  # fmt: skip
    assert len(drawn) > 15
    assert not [template for _, template in drawn if template not in PAGES]


def test_what_is_shown_unescaped_was_made_safe_before():
    """`|safe` is for the HTML that Markdown was rendered to, and for nothing else."""
    found = {(name, hit) for name, source in PAGES.items() for hit in re.findall(r"[\w.]+(?=\s*\|\s*safe)", source)}
    assert {hit for _, hit in found} <= {"comment.html", "text", "html"}, found
    assert not [name for name, source in PAGES.items() if "autoescape false" in source]


def test_every_form_that_posts_carries_the_token():
    for name, source in PAGES.items():
        for form in re.findall(r"<form\b.*?</form>", source, re.DOTALL):
            if re.search(r'method="post"', form) and "formaction" not in form:
                assert re.search(r"csrf\(\)|csrf_token|_fields\.html", form), name


def test_our_own_files_hold_no_mark_of_their_making():
    for path in [*PROJECT.glob("*.py"), *(PROJECT / "static").glob("*.*"), *TEMPLATES.rglob("*.html")]:
        if path.suffix in (".py", ".js", ".css", ".html"):
            source = path.read_text(encoding="utf-8")
            assert "\t" not in source, path
            assert not re.search(r"[ \t]+$|^(<{7}|>{7}) ", source, re.MULTILINE), path
            assert source.endswith("\n"), path
