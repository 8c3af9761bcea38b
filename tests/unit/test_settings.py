"""Settings: every option from each source, and errors with a remedy."""

from __future__ import annotations

import os

import pytest
from pydantic import SecretStr

from mlflow_middleware._internal.platforms import PLATFORMS
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.identity import Identity
from mlflow_middleware.settings import ENV_PREFIX, Settings, SettingsError

KEY = "0123-the-key-that-nobody-may-see"


def identify(exchange: Exchange) -> Identity:
    """The target of a dotted path in these tests."""
    return Identity(user_id=exchange.method)


NOT_CALLABLE = 1


@pytest.fixture(autouse=True)
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Remove our options from the environment, and the variables of platforms, which would add deployment tags."""
    signs = {platform.sign for platform in PLATFORMS.values()}
    for name in os.environ:
        if name.upper().startswith(ENV_PREFIX) or name in signs:
            monkeypatch.delenv(name)
    return monkeypatch


def problems(framework: dict[str, object] | None = None, /, **keywords: object) -> list[str]:
    """Return the errors in these options."""
    with pytest.raises(SettingsError) as caught:
        Settings.load(framework, **keywords)
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return caught.value.problems


def problem(framework: dict[str, object] | None = None, /, **keywords: object) -> str:
    """Return the one error in these options."""
    (only,) = problems(framework, **keywords)
    return only


# --- sources of options ---


def test_the_stronger_source_wins(env: pytest.MonkeyPatch) -> None:
    """Keywords beat the framework's settings, those beat the environment, and that beats the default."""
    assert Settings.load().user_id_header == "X-User-ID"
    env.setenv("MLFLOW_MIDDLEWARE_USER_ID_HEADER", "X-Environment")
    assert Settings.load().user_id_header == "X-Environment"
    assert Settings.load({"USER_ID_HEADER": "X-Framework"}).user_id_header == "X-Framework"
    assert Settings.load({"USER_ID_HEADER": "X-Framework"}, user_id_header="X-Code").user_id_header == "X-Code"


def test_sources_are_not_mixed_inside_one_option(env: pytest.MonkeyPatch) -> None:
    """A mapping given in code replaces the environment's; other options still come from there."""
    env.setenv("MLFLOW_MIDDLEWARE_TAGS", "team=a,tier=gold")
    env.setenv("MLFLOW_MIDDLEWARE_ENABLED", "false")

    settings = Settings.load(tags={"team": "b"})
    assert settings.tags == {"team": "b"}
    assert not settings.enabled


@pytest.mark.parametrize("name", ["session_id_header", "SESSION_ID_HEADER", "Session_Id_Header"])
def test_framework_settings_are_read_in_any_case(name: str) -> None:
    """Django's and Flask's are in capitals."""
    assert Settings.load({name: "X-Chat-ID"}).session_id_header == "X-Chat-ID"


@pytest.mark.parametrize("variable", ["MLFLOW_MIDDLEWARE_ENABLED", "mlflow_middleware_enabled"])
@pytest.mark.parametrize("value", ["false", "0", "no", "off", "False"])
def test_a_switch_in_the_environment(env: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """Every usual word, in any case."""
    env.setenv(variable, value)

    assert not Settings.load().enabled


@pytest.mark.parametrize("value", ["/a,/b*", " /a , /b* ,", '["/a", "/b*"]', ' ["/a","/b*"]'])
def test_a_list_in_the_environment(env: pytest.MonkeyPatch, value: str) -> None:
    """Separated by commas or as JSON."""
    env.setenv("MLFLOW_MIDDLEWARE_EXCLUDE", value)

    assert Settings.load().exclude == ("/a", "/b*")


@pytest.mark.parametrize(
    "value", ["plan=pro,query=a=b", " plan = pro , query = a=b ,", '{"plan": "pro", "query": "a=b"}']
)
def test_a_mapping_in_the_environment(env: pytest.MonkeyPatch, value: str) -> None:
    """As ``key=value`` separated by commas or as JSON; a value may contain ``=``."""
    env.setenv("MLFLOW_MIDDLEWARE_TAGS", value)

    assert Settings.load().tags == {"plan": "pro", "query": "a=b"}


@pytest.mark.parametrize(
    "value",
    ["429,500-502", " 429 , 500 - 502 ", '[429, "500-502"]', [429, "500-502"], (429, 500, 501, 502), {429, "500-502"}],
)
def test_error_statuses_may_be_ranges(value: object) -> None:
    """Numbers and ranges, in text, JSON or any collection."""
    assert Settings.load(error_statuses=value).error_statuses == {429, 500, 501, 502}


@pytest.mark.parametrize(("value", "codes"), [(418, {418}), ("418", {418}), ("", set()), ((), set())])
def test_error_statuses_may_be_one_or_none(value: object, codes: set[int]) -> None:
    """A single status needs no list; an empty one makes no status an error."""
    assert Settings.load(error_statuses=value).error_statuses == codes


def test_an_empty_variable_is_unset(env: pytest.MonkeyPatch) -> None:
    """``docker run -e NAME=`` keeps the default, for options of every type."""
    for option in Settings.model_fields:
        env.setenv(ENV_PREFIX + option.upper(), "")

    assert Settings.load() == Settings.model_construct(
        **{name: field.get_default(call_default_factory=True) for name, field in Settings.model_fields.items()}
    )


@pytest.mark.parametrize("path", ["tests.unit.test_settings.identify", "tests.unit.test_settings:identify"])
def test_identify_may_be_a_dotted_path(env: pytest.MonkeyPatch, path: str) -> None:
    """In code and in the environment."""
    request = Exchange("GET", "/", {})
    env.setenv("MLFLOW_MIDDLEWARE_IDENTIFY", path)

    for settings in (Settings.load(), Settings.load(identify=path), Settings.load(identify=identify)):
        assert settings.identify is not None
        assert settings.identify(request) == Identity(user_id="GET")


# --- errors ---


def test_an_unknown_keyword_is_an_error() -> None:
    """It is named, with the most similar option."""
    assert problem(session_header="X-Chat-ID") == "unknown option 'session_header' (did you mean 'session_id_header'?)"


def test_an_unknown_framework_setting_is_an_error() -> None:
    """In the spelling of options."""
    assert problem({"EXCLUDED": "/a"}) == "unknown option 'excluded' (did you mean 'exclude'?)"


def test_an_unknown_variable_is_an_error(env: pytest.MonkeyPatch) -> None:
    """Under its full name, which can be found in a deployment's files."""
    env.setenv("MLFLOW_MIDDLEWARE_EXCLUED", "/a")

    assert problem() == "unknown option 'exclued' (did you mean 'exclude'?) (from MLFLOW_MIDDLEWARE_EXCLUED)"


def test_an_option_unlike_any_other_lists_all() -> None:
    """If no option is similar, all are named."""
    found = problem(zzz=1)

    assert found.startswith("unknown option 'zzz' (options: ")
    assert all(option in found for option in Settings.model_fields)


@pytest.mark.parametrize(
    ("option", "value", "found"),
    [
        ("enabled", "maybe", ["valid boolean", "not 'maybe'"]),
        ("enabled", None, ["valid boolean", "not None"]),
        ("user_id_header", "X User", ["should match pattern", "not 'X User'"]),
        ("user_id_header", "X-User\n", ["should match pattern", r"not 'X-User\n'"]),
        ("user_id_header", "", ["should match pattern", "not ''"]),
        ("capture_headers[1]", ["Accept", "a b"], ["should match pattern", "not 'a b'"]),
        ("error_statuses", 700, ["100 to 599", "not 700"]),
        ("error_statuses", "500-700", ["100 to 599", "not '500-700'"]),
        ("error_statuses", "599-500", ["100 to 599", "not '599-500'"]),
        ("error_statuses", "5xx", ["such as 500-599", "not '5xx'"]),
        ("error_statuses", "100-99999999999", ["100 to 599"]),
        ("error_statuses", None, ["100 to 599", "not None"]),
        ("tags", "plan", ["key=value,key=value or as JSON", "not 'plan'"]),
        ("tags", "a=b,plan", ["key=value,key=value or as JSON", "not 'a=b,plan'"]),
        ("tags", '{"plan"', ["key=value,key=value or as JSON", "not '{\"plan\"'"]),
        ("tags", 5, ["valid dictionary", "not 5"]),
        ("exclude", "[", ["must be a list, written a,b or as JSON", "not '['"]),
        ("exclude", None, ["valid tuple", "not None"]),
        ("exclude[0]", [7], ["valid string", "not 7"]),
        ("identify", "nowhere.at.all", ["'nowhere.at.all' cannot be imported", "No module named 'nowhere'"]),
        ("identify", "os.path.nothing", ["'os.path.nothing' cannot be imported", "no attribute 'nothing'"]),
        ("identify", "identify", ["'identify' cannot be imported"]),
        ("identify", ".tests.identify", ["'.tests.identify' cannot be imported"]),
        ("identify", "tests.unit.test_settings.NOT_CALLABLE", ["callable", "not 1"]),
        ("identify", 3, ["callable", "not 3"]),
        ("response_headers[session, [key]]", {"session": "X-S"}, ["'session_id'", "not 'session'"]),
        ("response_headers[trace_id]", {"trace_id": "X T"}, ["should match pattern", "not 'X T'"]),
        ("max_queue_bytes", 1, ["greater than or equal to 65536", "not 1"]),
        ("shutdown_timeout", -1, ["greater than or equal to 0", "not -1"]),
        ("shutdown_timeout", "soon", ["valid number", "not 'soon'"]),
    ],
)
def test_an_ill_typed_option_is_an_error(option: str, value: object, found: list[str]) -> None:
    """The error has the option, its type and the value."""
    message = problem(**{option.partition("[")[0]: value})

    assert message.startswith(f"option {option!r}: ")
    assert [part for part in found if part not in message] == []


def test_an_ill_typed_variable_is_named(env: pytest.MonkeyPatch) -> None:
    """The error has the variable with the wrong value."""
    env.setenv("MLFLOW_MIDDLEWARE_ENABLED", "maybe")

    assert problem().startswith("option 'enabled' (from MLFLOW_MIDDLEWARE_ENABLED): ")


def test_a_long_value_is_truncated_in_the_error() -> None:
    """An error stays readable with any value."""
    assert len(problem(enabled="x" * 10_000)) < 300


def test_all_errors_are_reported_at_once(env: pytest.MonkeyPatch) -> None:
    """Unknown and ill-typed ones, from every source, one sentence each."""
    env.setenv("MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT", "soon")
    env.setenv("MLFLOW_MIDDLEWARE_TAG", "a=b")

    found = problems({"ENABLED": "maybe", "HEADERS": "a"}, exclude=None, identfy=None)
    assert sorted(message.split("'")[1] for message in found) == [
        "enabled",
        "exclude",
        "headers",
        "identfy",
        "shutdown_timeout",
        "tag",
    ]


# --- the key ---


@pytest.mark.parametrize("value", [KEY, SecretStr(KEY)])
def test_the_hmac_key_is_never_shown(value: object) -> None:
    """Neither in the settings' text nor in an error of another option."""
    settings = Settings.load(user_id_hmac_key=value)

    assert settings.hmac_key == KEY.encode()
    assert KEY not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert KEY not in str(problems(user_id_hmac_key=value, enabled="maybe", nope=1))


@pytest.mark.parametrize("value", [[KEY], {KEY: KEY}, 123456])
def test_an_ill_typed_hmac_key_is_not_shown_either(value: object) -> None:
    """The error has the option only."""
    found = problem(user_id_hmac_key=value)

    assert "user_id_hmac_key" in found
    assert KEY not in found
    assert "123456" not in found


def test_an_hmac_key_must_not_be_empty() -> None:
    """Everybody could compute the pseudonyms of an empty key."""
    assert "user_id_hmac_key" in problem(user_id_hmac_key="")


def test_no_key_means_no_pseudonyms() -> None:
    """The default stores user ids unchanged."""
    assert Settings.load().hmac_key is None


# --- values from several options ---


def test_the_request_id_is_sent_under_the_header_that_is_read(env: pytest.MonkeyPatch) -> None:
    """Wherever the header's name was set; later settings are not affected."""
    expected = {"request_id": "X-Correlation-ID", "trace_id": "X-MLflow-Trace-ID"}

    assert Settings.load(request_id_header="X-Correlation-ID").response_headers == expected
    assert Settings.load().response_headers == {"request_id": "X-Request-ID", "trace_id": "X-MLflow-Trace-ID"}
    env.setenv("MLFLOW_MIDDLEWARE_REQUEST_ID_HEADER", "X-Correlation-ID")
    assert Settings.load().response_headers == expected


@pytest.mark.parametrize("value", [{"request_id": "X-Answer-ID"}, "request_id=X-Answer-ID", {}])
def test_response_headers_are_the_configured_ones(value: object) -> None:
    """Once they are set, the request id's header has no effect on them."""
    settings = Settings.load(request_id_header="X-Correlation-ID", response_headers=value)

    assert settings.response_headers == ({"request_id": "X-Answer-ID"} if value else {})


def test_deployment_tags_come_from_the_environment(env: pytest.MonkeyPatch) -> None:
    """A variable that is unset, or empty, gives no tag."""
    for name in ("DEPLOYMENT_ID", "APP_VERSION"):
        env.delenv(name, raising=False)
    env.setenv("ENVIRONMENT", "production")
    env.setenv("REGION", "")

    assert Settings.load().trace_tags == {"environment": "production"}


def test_fixed_tags_beat_those_of_the_deployment(env: pytest.MonkeyPatch) -> None:
    """Both are sanitized and bounded, like all stored values."""
    env.setenv("TIER", "g\told")
    env.setenv("LONG", "x" * 10_000)
    settings = Settings.load(
        deployment_tags="tier=TIER,team=TEAM,long=LONG,missing=MISSING", tags={"team": "core", "note": " \n"}
    )

    assert settings.trace_tags == {"tier": "g\ufffdold", "long": "x" * 4096, "team": "core"}


@pytest.mark.parametrize(
    ("globs", "path", "is_excluded"),
    [
        (("/health",), "/health", True),
        (("/health",), "/health/", False),
        (("/health",), "/healthy", False),
        (("/health",), "/a/health", False),
        (("/static/*",), "/static/css/site.css", True),
        (("/static/*",), "/static", False),
        (("/v?/ping",), "/v1/ping", True),
        (("/v[12]/ping",), "/v3/ping", False),
        (("/a.b",), "/aXb", False),
        (("/*",), "/a\nb", True),
        (("/a", "/b"), "/b", True),
        ((), "/health", False),
        ((), "", False),
    ],
)
def test_excluded_paths_are_globs(globs: tuple[str, ...], path: str, is_excluded: bool) -> None:
    """A glob covers the whole path; ``*`` crosses slashes."""
    assert Settings.load(exclude=globs).excludes(path) is is_excluded


@pytest.mark.parametrize("path", ["/health", "/healthz", "/livez", "/readyz", "/metrics", "/favicon.ico"])
def test_probes_are_excluded_by_default(path: str) -> None:
    """Requests every few seconds make no traces."""
    assert Settings.load().excludes(path)
    assert not Settings.load().excludes("/chats/1")


PREFLIGHT = {"origin": "https://shop.example", "access-control-request-method": "POST"}


@pytest.mark.parametrize(
    ("exclude", "method", "headers", "is_excluded"),
    [
        (("OPTIONS *",), "OPTIONS", {}, True),
        (("options *",), "OPTIONS", {}, True),
        (("OPTIONS *",), "GET", {}, False),
        (("HEAD /x",), "HEAD", {}, True),
        (("HEAD /x",), "GET", {}, False),
        (("HEAD /y",), "HEAD", {}, False),
        (("M-SEARCH *",), "M-SEARCH", {}, True),
        (("preflight",), "OPTIONS", PREFLIGHT, True),
        (("preflight",), "OPTIONS", {"origin": "https://shop.example"}, False),
        (("preflight",), "GET", PREFLIGHT, False),
        (("default", "/x"), "OPTIONS", PREFLIGHT, True),
        (("default",), "OPTIONS", {}, False),
        (("/y",), "OPTIONS", PREFLIGHT, False),
    ],
)
def test_methods_and_preflights_are_excluded(
    exclude: tuple[str, ...], method: str, headers: dict[str, str], is_excluded: bool
) -> None:
    """By a method before the path, and by name."""
    assert Settings.load(exclude=exclude).excludes("/x", method, headers) is is_excluded


def test_preflights_are_excluded_by_default(env: pytest.MonkeyPatch) -> None:
    """Browsers send them before many requests, and no user does; the default can be extended."""
    assert Settings.load().excludes("/x", "OPTIONS", PREFLIGHT)

    env.setenv("MLFLOW_MIDDLEWARE_EXCLUDE", "default,HEAD *")
    settings = Settings.load()
    assert settings.excludes("/health")
    assert settings.excludes("/x", "OPTIONS", PREFLIGHT)
    assert settings.excludes("/x", "HEAD")
    assert not settings.excludes("/x")


@pytest.mark.parametrize("entry", ["preflights", "health", "OPTIONS", "HEAD health", ""])
def test_an_entry_that_would_exclude_nothing_is_an_error(entry: str) -> None:
    """The error has the entry and the allowed values."""
    text = problem(exclude=[entry])

    assert repr(entry) in text
    assert "'default' or 'preflight'" in text


# --- the secrets of feedback ---


def test_a_secret_for_feedback_is_never_shown(env: pytest.MonkeyPatch) -> None:
    """In no error; too short ones and an empty list, which would sign nothing, are refused."""
    assert KEY not in problem(feedback_secret={KEY: 1})
    assert "short-one" not in problem(feedback_secret=["short-one"])
    assert "at least one secret" in problem(feedback_secret=[])
    env.setenv("MLFLOW_MIDDLEWARE_FEEDBACK_SECRET", ",")
    assert "at least one secret" in problem()
    env.setenv("MLFLOW_MIDDLEWARE_FEEDBACK_SECRET", f"{KEY},{KEY}-old")
    assert Settings.load().feedback_keys == (KEY.encode(), f"{KEY}-old".encode())
    assert KEY not in repr(Settings.load())
